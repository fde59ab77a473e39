"""TorchScript files are programs: only those on a list are opened."""

import os

import pytest
import torch
from animate_anywhere.models import torchscript
from animate_anywhere.nodes import background, detection, files
from animate_anywhere.nodes import mask as mask_nodes
from dwpose_toys import people_network, points_network, save_torchscript

pytest_plugins = ["model_folders"]
pytestmark = pytest.mark.usefixtures("no_gradients")


class Intruder(torch.nn.Module):
    """Writes a file as soon as it is opened."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target, self.memory = target, torch.zeros(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target, self.training = state
        self.memory = torch.from_file(self.target, True, 4, dtype=torch.uint8).fill_(7)

    def forward(self, x):
        return x


def frames_and_mask():
    mask = torch.zeros(2, 64, 64)
    mask[:, 20:50, 20:50] = 1
    return torch.rand(2, 64, 64, 3), mask


class TestTorchScript:
    @pytest.fixture(scope="class")
    def written(self, tmp_path_factory):
        return tmp_path_factory.mktemp("programs") / "written"

    @pytest.fixture(scope="class")
    def program(self, written):
        path = written.with_name("intruder.pt")
        torch.jit.script(Intruder(str(written))).save(path)
        torch.jit.load(path)
        assert written.read_bytes() == b"\7\7\7\7"  # it does harm where it is opened
        return path

    @pytest.fixture
    def intruder(self, program, written):
        """A program that nobody may have opened when the test is over."""
        written.unlink(missing_ok=True)
        yield program
        assert not written.exists()

    @pytest.mark.parametrize("name", ["big-lama.pt", "another.pt"])
    def test_inpaint_background_does_not_open_an_unknown_one(self, models, intruder, name):
        (models / "inpaint" / name).write_bytes(intruder.read_bytes())
        images, mask = frames_and_mask()
        with pytest.raises(ValueError, match=f"^invent: {name} .* was not opened, because a .pt file can run code"):
            background.InpaintBackground.execute(images, mask, invent="auto", grow=0)

    def test_dwpose_does_not_open_an_unknown_one(self, models, intruder):
        for sources in (detection.PEOPLE, detection.POINTS):
            (models / "detection" / sources[0].name).write_bytes(intruder.read_bytes())
        with pytest.raises(ValueError, match=r"^detector: yolox_l.torchscript.pt is not the published file"):
            detection.load_dwpose()

    def test_segment_character_does_not_open_a_pickled_one(self, models, intruder):
        (models / "sam2" / "sam2_x.pt").write_bytes(intruder.read_bytes())
        with pytest.raises(ValueError, match=r"^weights: sam2_x.pt is not opened.*convert.py unpickle"):
            mask_nodes.SegmentCharacter.execute(torch.rand(1, 64, 64, 3), model="sam2")

    def test_a_trusted_hash_under_another_name_is_not_enough(self, models, intruder):
        with pytest.raises(ValueError, match="not on the pack's list"):
            torchscript.load(intruder, "cpu", {("other.pt", digest(intruder))}, "invent", files.allow_list())

    def test_the_artists_list_allows_more_and_the_error_says_the_line(self, models, tmp_path):
        for sources, network, size in (
            (detection.PEOPLE, people_network(), (64, 96)),
            (detection.POINTS, points_network(), (64, 48)),
        ):
            save_torchscript(network, models / "detection" / sources[0].name, size)
        with pytest.raises(ValueError) as error:
            detection.load_dwpose()
        line = str(error.value).split('"')[1]
        other = models / "detection" / detection.POINTS[0].name
        files.allow_list().write_text(f"# mine\n{line}\n{digest(other).upper()} *{other.name}\nrubbish\n")
        detection.load_dwpose()

    def test_a_file_that_is_exchanged_after_it_was_hashed_is_hashed_again(self, models, intruder, tmp_path):
        path = tmp_path / "network.pt"
        torch.jit.script(torch.nn.ReLU()).save(path)
        trusted = {(path.name, digest(path))}
        torchscript.load(path, "cpu", trusted, "invent", files.allow_list())
        before = path.stat()
        path.write_bytes(intruder.read_bytes().ljust(before.st_size, b"\0"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(ValueError, match="is not the published file"):
            torchscript.load(path, "cpu", trusted, "invent", files.allow_list())

    def test_a_file_is_hashed_once(self, models, tmp_path, monkeypatch):
        path = tmp_path / "network.pt"
        torch.jit.script(torch.nn.ReLU()).save(path)
        first = digest(path)
        monkeypatch.setattr(torchscript.hashlib, "sha256", lambda: pytest.fail("hashed again"))
        assert digest(path) == first

    def test_all_that_the_pack_downloads_have_a_published_hash(self):
        names = {name for name, sha256 in files.trusted_programs() if len(sha256) == 64}
        assert names >= {"big-lama.pt", detection.PEOPLE[0].name, detection.POINTS[0].name}


def digest(path):
    with path.open("rb") as file:
        return torchscript.sha256_of(path, file)
