"""Names of models come from a list, or over a link from anywhere: none leads out of the model folders."""

from pathlib import Path

import folder_paths
import pytest
import released
import torch
from animate_anywhere.nodes import adapter as adapter_nodes
from animate_anywhere.nodes import background
from animate_anywhere.nodes import dynamictrl as dynamictrl_nodes
from animate_anywhere.nodes import mask as mask_nodes

pytest_plugins = ["model_folders"]
pytestmark = pytest.mark.usefixtures("no_gradients")


def frames_and_mask():
    mask = torch.zeros(2, 64, 64)
    mask[:, 20:50, 20:50] = 1
    return torch.rand(2, 64, 64, 3), mask


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["../secret/", "../../secret/", "/etc/", "a/../../secret/", "..\\secret\\", "C:\\x/", "", "\0/", None, 7, ["a"],
         {"a": 1}, "x" * 500 + "/", "../secret/model.safetensors", "/etc/passwd", "Gone/", "gone.safetensors"],
        ids=repr,
    )  # fmt: skip
    def test_a_linked_name_never_leads_out_of_the_model_folders(self, tmp_path, monkeypatch, name):
        inside = tmp_path / "diffusion_models"
        inside.mkdir()
        released.save(tmp_path / "secret", released.weights(1))
        for folder in (dynamictrl_nodes.FOLDER, adapter_nodes.FOLDER):
            monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(inside)], {".safetensors"}))
        with pytest.raises(ValueError, match=r"^checkpoint: "):
            dynamictrl_nodes.LoadDynamiCtrl.execute(name)
        with pytest.raises(ValueError, match=r"^adapter: "):
            adapter_nodes.LoadAdapter.execute(name)

    def test_a_link_to_a_folder_elsewhere_is_followed(self, tmp_path, monkeypatch):
        """People link their model files to other disks."""
        inside = tmp_path / "diffusion_models"
        inside.mkdir()
        released.save(tmp_path / "disk", released.weights(1))
        (inside / "linked").symlink_to(tmp_path / "disk")
        monkeypatch.setitem(folder_paths.folder_names_and_paths, dynamictrl_nodes.FOLDER, ([str(inside)], set()))
        assert dynamictrl_nodes.path_of("linked/") == inside / "linked"

    @pytest.mark.parametrize("value", ["fp7", "", None, 7, ["default"], True])
    def test_a_linked_precision_is_checked(self, monkeypatch, value):
        monkeypatch.setattr(dynamictrl_nodes, "path_of", lambda _: Path("x"))
        with pytest.raises(ValueError, match=r"^weight_dtype: "):
            dynamictrl_nodes.LoadDynamiCtrl.execute("x", value)

    @pytest.mark.parametrize("value", [None, 7, ["auto"], {"a": 1}, True, "../x.safetensors", "auto ", ""])
    def test_a_linked_name_of_weights_is_checked(self, models, value):
        (models / "sam2" / "sam2_x.safetensors").touch()
        with pytest.raises(ValueError, match=r"^weights: "):
            mask_nodes.SAM2.path(value, asked_by="weights")


class TestBrokenLinks:
    def test_auto_takes_another_file_or_says_what_is_missing(self, models):
        (models / "sam2" / mask_nodes.SAM2.known).symlink_to("/nowhere/blob")
        assert mask_nodes.SAM2.found() == {}
        with pytest.raises(ValueError, match=r"weights: its weights are missing. Put sam2.1_hiera_base_plus"):
            mask_nodes.SAM2.path(asked_by="weights")
        (models / "sam2" / "sam2_tiny.safetensors").touch()
        assert mask_nodes.SAM2.path().name == "sam2_tiny.safetensors"

    def test_a_folder_whose_files_are_gone_is_not_listed(self, models):
        folder = models / "vitmatte" / mask_nodes.VITMATTE.known
        folder.mkdir()
        (folder / "config.json").symlink_to("/nowhere/config.json")
        assert mask_nodes.VITMATTE.found() == {}

    def test_invent_auto_falls_back_to_telea(self, models):
        (models / "inpaint" / "big-lama.pt").symlink_to("/nowhere/blob")
        images, mask = frames_and_mask()
        auto, telea = (
            background.InpaintBackground.execute(images, mask, invent=way, grow=0).result[0]
            for way in ("auto", "telea")
        )
        assert torch.equal(auto, telea)
