import numpy as np
import pytest
import torch
from animate_anywhere.training import compare, videos
from torch import Tensor, nn

DEVICE = torch.device("cpu")


def write(path, seed, frames=8, size=32):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (frames, size // 8, size // 8, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(videos.write(coarse.repeat(8, 1).repeat(8, 2), 8))


class Inception(nn.Module):
    def forward(self, pictures: Tensor, return_features: bool = False) -> Tensor:
        return pictures.flatten(2).mean(2) + float(return_features)


class VGG(nn.Module):
    def forward(self, pictures: Tensor, resize_images: bool = True, return_lpips: bool = False) -> Tensor:
        return pictures.flatten(1) / 255 + float(return_lpips and not resize_images)


class I3D(nn.Module):
    def forward(
        self, clips: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        return clips.flatten(2).std(2) + float(rescale and resize and return_features)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Toys of the foreign networks, in their form."""
    folder = tmp_path_factory.mktemp("networks")
    for name, network in ((compare.INCEPTION, Inception()), (compare.VGG, VGG()), (compare.I3D, I3D())):
        torch.jit.script(network).save(str(folder / name))
    return compare.Networks.load(folder, DEVICE)


@pytest.fixture
def folders(tmp_path):
    """Two clips; the true ones have twice the frames."""
    for name in ("a", "b"):
        write(tmp_path / "truth" / f"{name}.mp4", ord(name))
        frames = videos.read(tmp_path / "truth" / f"{name}.mp4")[::2]
        (tmp_path / "generated").mkdir(exist_ok=True)
        (tmp_path / "generated" / f"{name}.mp4").write_bytes(videos.write(frames, 4))
    return tmp_path / "generated", tmp_path / "truth"


def run(folders, networks, stride=2, frames=4):
    comparison = compare.Comparison(networks, DEVICE)
    rows = dict(compare.compare(compare.pairs_of(*folders), comparison, frames, stride, 1))
    return rows, comparison.summary()


def test_every_second_frame_of_the_truth_is_what_was_generated(folders, networks):
    rows, told = run(folders, networks)
    assert rows.keys() == {"a", "b"}
    assert told["psnr"]["mean"] > 35  # twice through x264
    assert told["lpips"]["mean"] < 1
    assert told["fvd"]["mean"] == pytest.approx(0, abs=2)


def test_other_frames_are_worse(folders, networks):
    good, bad = run(folders, networks)[1], run(folders, networks, stride=1)[1]
    for name in ("psnr", "ssim"):
        assert bad[name]["mean"] < good[name]["mean"]
    for name in ("lpips", "fid"):
        assert bad[name]["mean"] > good[name]["mean"]


def test_without_networks_the_rest_is_measured(folders, caplog):
    caplog.set_level("INFO")
    _, told = run(folders, compare.Networks.load(None, DEVICE))
    assert told.keys() == {"videos", "psnr", "ssim"}
    assert f"Without FVD: put {compare.I3D}" in caplog.text


def test_a_file_that_is_no_network_is_named(tmp_path):
    (tmp_path / compare.I3D).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"{compare.I3D} is no TorchScript archive"):
        compare.Networks.load(tmp_path, DEVICE)


def test_a_video_without_a_partner_is_named(folders):
    write(folders[0] / "c.mp4", 0)
    with pytest.raises(ValueError, match="has no video named c"):
        compare.pairs_of(*folders)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="generated: .* holds no videos"):
        compare.pairs_of(tmp_path, tmp_path)


def test_a_short_video_says_how_short_it_is(folders):
    with pytest.raises(ValueError, match=r"of every 4 frames one makes 2; 48 are needed"):
        compare.read(folders[1] / "a.mp4", 48, 4)
