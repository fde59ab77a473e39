"""What nodes show of their work: latents while they are sampled, and what the page draws afterwards."""

import io as streams
import json

import comfy.sd
import comfy.utils
import folder_paths
import latent_preview
import numpy as np
import pack
import pytest
import torch
from animate_anywhere.models import latents
from animate_anywhere.models import preview as colours
from animate_anywhere.nodes import preview
from animate_anywhere.vision import contact_sheet
from animate_anywhere.vision.pose import PoseTrack
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image
from torch.nn import functional


@pytest.fixture(scope="module")
def vae():
    weights = comfy.utils.load_torch_file(str(pack.ROOT / "weights" / "vae" / "aa_tiny_vae.safetensors"))
    return comfy.sd.VAE(sd=weights)


@pytest.fixture
def temp(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return tmp_path


def content(temp, file):
    return (temp / file["subfolder"] / file["filename"]).read_bytes()


def reduced(frames, side):
    return functional.interpolate(frames.movedim(-1, 1), (side, side), mode="area").movedim(1, -1)


def test_the_picture_shows_four_frames_of_the_clip_in_its_colours(vae, dance):
    clip = reduced(dance[:13], 128)
    fitted = colours.fit(vae, clip[:1])
    picture = colours.picture(fitted, latents.encode_frames(vae, clip))
    assert picture.shape == (128, 128, 3) and picture.min() >= 0 and picture.max() <= 1
    # Latent frames 0 to 3 code frame 0, and frames 1 to 4, 5 to 8, 9 to 12.
    parts = [clip[:1], clip[1:5], clip[5:9], clip[9:13]]
    wanted = [reduced(part.mean(0, keepdim=True), 16)[0] for part in parts]
    shown = reduced(picture[None], 32)[0]
    for place, truth in enumerate(wanted):
        row, column = divmod(place, 2)
        tile = shown[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        spread = (truth - truth.mean((0, 1))).square().mean().sqrt()  # what one colour for all would be off
        assert (tile - truth).square().mean().sqrt() < 0.6 * spread


def test_a_short_clip_shows_what_it_has():
    flat = colours.Colours(torch.zeros(16, 3), torch.tensor([0.2, 0.4, 0.6]))
    picture = colours.picture(flat, torch.zeros(1, 16, 2, 8, 6))
    assert picture.shape == (128, 192, 3)
    torch.testing.assert_close(picture, flat.bias.expand_as(picture))


class Model:
    def __init__(self, latent_format) -> None:
        self.load_device = torch.device("cpu")
        self.model = self
        self.latent_format = latent_format


@pytest.mark.parametrize("method", list(LatentPreviewMethod))
def test_the_host_gets_a_picture_where_it_wants_previews(vae, dance, monkeypatch, method):
    sent = []
    monkeypatch.setattr(args, "preview_method", method)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *update, **_: sent.append(update))
    model = Model(comfy.latent_formats.CogVideoX())
    clip = reduced(dance[:5], 64)
    show = preview.sampling_callback(model, vae, clip[:1], 3)
    x0 = model.latent_format.process_in(latents.encode_frames(vae, clip))
    show(0, x0, x0, 3)
    ((done, total, picture),) = sent
    assert (done, total) == (1, 3)
    if method == LatentPreviewMethod.NoPreviews:
        assert picture is None
    else:
        kind, image, largest = picture
        assert kind == "JPEG" and image.size == (256, 128) and largest == latent_preview.MAX_PREVIEW_RESOLUTION
        side = np.asarray(image)[:, :128].mean((0, 1)) / 255
        np.testing.assert_allclose(side, clip[0].mean((0, 1)), atol=0.1)


def test_formats_that_the_host_knows_are_left_to_it(vae, monkeypatch):
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    made = preview.sampling_callback(Model(comfy.latent_formats.Wan21()), None, None, 3)
    assert made.__module__ == latent_preview.__name__


def test_frames_lie_where_the_layout_says():
    frames = torch.linspace(0, 1, 70)[:, None, None, None].expand(-1, 300, 600, 4)
    tiles = contact_sheet.layout(600, 300)
    assert (tiles.width, tiles.height) == (256, 128)
    sheets = [np.asarray(Image.open(streams.BytesIO(sheet))) for sheet in contact_sheet.sheets(frames)]
    assert [sheet.shape for sheet in sheets] == [(8 * 128, 8 * 256, 3), (128, 8 * 256, 3)]
    for frame in (0, 9, 63, 64, 69):
        sheet, place = divmod(frame, 64)
        row, column = divmod(place, 8)
        tile = sheets[sheet][128 * row : 128 * row + 128, 256 * column : 256 * column + 256]
        np.testing.assert_allclose(tile, 255 * frame / 69, atol=3)


def test_the_player_gets_poses_confidences_and_pictures(temp):
    keypoints = np.zeros((3, 2, 18, 3))
    keypoints[:, 0] = [10.4, 20.6, 1.0]
    keypoints[1, 1] = [30.0, 40.0, 0.4]
    track = PoseTrack(keypoints, 64, 48)
    file = preview.pose_player(
        track, np.array([1.0, 0.5, 0.0]), np.array([False, False, True]), torch.zeros(3, 48, 64, 3)
    )
    assert file["type"] == "temp"
    told = json.loads(content(temp, file))
    assert told["confidence"] == [100, 50, 0] and told["filled"] == [2]
    assert [len(people) for people in told["poses"]] == [1, 2, 1]
    assert told["poses"][1] == [[10, 21, 100] * 18, [30, 40, 40] * 18]
    assert Image.open(streams.BytesIO(content(temp, told["sheets"][0]))).size == (8 * 64, 48)
    ghost = json.loads(content(temp, preview.pose_player(track, np.ones(3), np.zeros(3, bool), ghost=track)))
    assert ghost["ghosts"] == ghost["poses"] and "sheets" not in ghost
