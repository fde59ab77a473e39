"""ViTMatte at toy size, LaMa with random weights: what goes in, what may change, what is told of bad files."""

import pytest
import torch
from animate_anywhere.models import inpainter, matting
from safetensors.torch import save_file
from support import toy_networks
from transformers import VitMatteImageProcessor


def refuse(path):
    pytest.fail("opened a program")


@pytest.fixture(scope="module")
def toy():
    return toy_networks.vitmatte()


def scene(height=120, width=90):
    frames = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(0))
    trimaps = torch.zeros(2, height, width)
    trimaps[:, 40:80, 30:60] = 0.5
    trimaps[:, 50:70, 40:50] = 1
    return frames, trimaps


def test_alpha_is_what_transformers_gives_with_its_own_preparation(toy):
    frames, trimaps = scene(64, 96)
    trimaps[:, 0, 0] = trimaps[:, -1, -1] = 0.5  # the whole picture is the box
    frames = (frames * 255).round() / 255
    trimaps_bytes = torch.where(trimaps == 0.5, 128 / 255, trimaps)
    prepared = VitMatteImageProcessor()(
        [(frame * 255).round().byte().numpy() for frame in frames],
        [(trimap * 255).round().byte().numpy() for trimap in trimaps_bytes],
        return_tensors="pt",
    )
    with torch.inference_mode():
        expected = toy(**prepared).alphas[:, 0]
    unknown = trimaps == 0.5
    alphas = matting.VitMatte(toy).matte(frames, trimaps_bytes.clone())
    assert expected[unknown].std() > 1e-4
    assert torch.allclose(alphas[unknown], expected[unknown], atol=1e-4)


def test_only_what_is_unknown_changes_and_nothing_is_asked_where_all_is_known(toy):
    frames, trimaps = scene()
    trimaps[1] = (trimaps[1] > 0.7).float()
    done = []
    alphas = matting.VitMatte(toy).matte(frames, trimaps.clone(), done.append)
    known = trimaps != 0.5
    assert torch.equal(alphas[known], trimaps[known])
    assert not torch.equal(alphas[0], trimaps[0])
    assert torch.equal(alphas[1], trimaps[1])
    assert done == [1, 2]


def test_matting_can_be_cancelled(toy):
    def cancel(done):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        matting.VitMatte(toy).matte(*scene(), cancel)


def test_a_folder_loads_to_the_bit_and_another_is_named(toy, tmp_path):
    toy.save_pretrained(tmp_path / "matte")
    loaded = matting.load(tmp_path / "matte").placed.network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in toy.state_dict().items())
    (tmp_path / "empty").mkdir()
    save_file({"weight": torch.zeros(2)}, tmp_path / "matte" / "model.safetensors", metadata={"format": "pt"})
    for folder in ("empty", "matte"):
        with pytest.raises(ValueError, match=f"matting: .*{folder} does not hold ViTMatte"):
            matting.load(tmp_path / folder)


@pytest.fixture(scope="module")
def lama(tmp_path_factory):
    """The architecture has one size; its weights are random here."""
    path = toy_networks.save_lama(tmp_path_factory.mktemp("inpaint") / "lama.safetensors")
    return inpainter.load(path, refuse)


def test_lama_fills_the_hole_and_leaves_the_rest(lama):
    picture = torch.rand(40, 50, 3, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(40, 50, dtype=torch.bool)
    hole[10:20, 15:30] = True
    filled = lama.fill(picture, hole)
    assert filled.shape == picture.shape
    assert torch.equal(filled[~hole], picture[~hole])
    assert (filled[hole] - picture[hole]).abs().mean() > 0.1
    assert filled.min() >= 0 and filled.max() <= 1


def test_a_large_picture_is_filled_at_the_size_lama_knows(lama, monkeypatch):
    monkeypatch.setattr(inpainter, "LARGEST", 32)
    picture, hole = torch.full((64, 48, 3), 0.5), torch.zeros(64, 48, dtype=torch.bool)
    hole[20:40, 20:30] = True
    filled = lama.fill(picture, hole)
    assert torch.equal(filled[~hole], picture[~hole])


@pytest.mark.parametrize("content", [b"no tensors", None])
def test_a_file_that_is_no_lama_is_named(content, tmp_path):
    path = tmp_path / "lama.safetensors"
    path.write_bytes(content) if content else save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"invent: lama\.safetensors is damaged, or no LaMa"):
        inpainter.load(path, refuse)
