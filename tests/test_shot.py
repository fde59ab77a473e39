"""The Shot: putting it together, cutting it, encoding it."""

import comfy.utils
import numpy as np
import pytest
import torch
import toys
from animate_anywhere.models import clips, latents
from animate_anywhere.models.clips import Shot, make_shot
from animate_anywhere.models.reference import Reference
from animate_anywhere.nodes import mask as mask_nodes
from animate_anywhere.nodes import pose as pose_nodes
from animate_anywhere.nodes import shot as nodes
from animate_anywhere.vision import drawing
from animate_anywhere.vision import mask as masks
from animate_anywhere.vision.pose import PoseTrack

pytestmark = pytest.mark.usefixtures("no_gradients")

REFERENCE = Reference((torch.zeros(1, 2, 8),), (1, 2))


@pytest.fixture(scope="module")
def vae():
    return toys.taehv_vae()


def numbered(frames, width=32, height=16, channels=3):
    """Frames that carry their number, as thousandths, in every pixel."""
    return (torch.arange(frames) / 1000).view(-1, 1, 1, 1).expand(-1, height, width, channels)


def numbers(frames):
    return [round(float(frame.mean()) * 1000) for frame in frames]


def noise(frames, width=32, height=16):
    return torch.rand(frames, height, width, 3)


# --- putting it together


def test_a_shot_takes_size_and_length_from_the_pose():
    shot = make_shot(numbered(21), noise(1))
    assert (shot.width, shot.height, shot.length) == (32, 16, 21)
    assert shot.background.shape == (1, 16, 32, 3) and shot.mask is None and not shot.has_environment
    assert numbers(shot.pose) == list(range(21))


@pytest.mark.parametrize("length", [1, 2, 15, 48])
def test_a_shot_may_have_any_length(length):
    shot = make_shot(numbered(48), numbered(48), length=length)
    assert shot.length == length
    assert numbers(shot.pose) == numbers(shot.background) == list(range(length))


def test_a_background_video_that_is_longer_than_the_pose_is_cut():
    shot = make_shot(numbered(22), numbered(29))
    assert shot.length == 22 and numbers(shot.background) == list(range(22))


def test_every_input_is_brought_to_the_shots_size():
    shot = make_shot(noise(5, 64, 32), noise(5, 100, 50), mask=torch.ones(5, 50, 100), width=32, height=16)
    assert shot.pose.shape == shot.background.shape == (5, 16, 32, 3)
    assert shot.mask.shape == (5, 16, 32)


def test_one_side_follows_from_the_other_in_the_poses_aspect_ratio():
    """In the nearest multiple of 16."""
    shot = make_shot(noise(5, 96, 64), noise(1, 96, 64), width=48)
    assert (shot.width, shot.height) == (48, 32)
    shot = make_shot(noise(5, 96, 64), noise(1, 96, 64), height=64)
    assert (shot.width, shot.height) == (96, 64)
    shot = make_shot(noise(5, 854, 480), noise(1, 96, 64), width=512)
    assert (shot.width, shot.height) == (512, 288)


def test_a_background_of_another_aspect_ratio_is_cropped_at_its_centre():
    """A 64×16 picture, black with a white middle half, on a 32×16 shot: only the middle is left."""
    background = torch.zeros(1, 16, 64, 3)
    background[:, :, 16:48] = 1
    assert make_shot(noise(5), background).background.min() == 1


def test_a_mask_is_cropped_with_its_background():
    mask = torch.zeros(1, 16, 64)
    mask[:, :, 16:48] = 1
    assert make_shot(noise(5), noise(5, 64, 16), mask=mask).mask.min() == 1


def test_transparency_is_dropped():
    assert make_shot(noise(5), torch.rand(1, 16, 32, 4)).background.shape[-1] == 3


def test_a_mask_without_frames_dimension_serves_all_frames():
    assert make_shot(noise(5), noise(5), mask=torch.ones(16, 32)).mask.shape == (1, 16, 32)


def test_a_mask_has_no_meaning_on_one_picture():
    assert make_shot(noise(5), noise(1), mask=torch.ones(1, 16, 32)).mask is None


def test_a_side_that_follows_from_the_other_is_never_refused():
    """1500×1000 at width 256 is 256×170.7; the nearest step is 176, 3 % off, and the frames are cropped by that."""
    assert (make_shot(noise(5, 150, 100), noise(1), width=256).height) == 176


def test_resizing_reports_each_frame_and_can_be_cancelled():
    done = []
    make_shot(noise(40, 64, 32), noise(1, 64, 32), width=32, progress=done.append)
    assert done == sorted(done) and done[-1] == 40 + 1

    def cancel(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_shot(noise(40, 64, 32), noise(1, 64, 32), width=32, progress=cancel)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"pose": torch.zeros(0, 16, 32, 3)}, "pose: there are no frames"),
        ({"background": torch.zeros(0, 16, 32, 3)}, "background: there are no frames"),
        ({"background": noise(3)}, "background: the video has 3 frames and the pose 13. Set length to 3 or less"),
        ({"start": torch.zeros(0, 16, 32, 3)}, "start: there are no frames"),
        ({"mask": torch.ones(12, 16, 32)}, "mask: it has 12 frames and the background video 13"),
        ({"mask": torch.ones(13, 32, 32)}, "mask: it is 32×32 px and the background video 32×16 px"),
        ({"width": 40, "height": 16}, "width must be a multiple of 16 pixels; 40 is not. Nearest: (32|48)"),
        ({"height": 10}, "height must be a multiple of 16 pixels; 10 is not. Nearest: 16"),
        ({"pose": noise(13, 350, 350)}, "width must be a multiple of 16 pixels; 350 is not. Nearest: 352"),
        ({"width": 32, "height": 32}, "pose: the video is 32×16 px and the shot 32×32 px.*Set only one"),
        ({"length": 14}, "length: 14 frames are asked for; choose 1 to 13"),
        ({"length": -1}, "length: -1 frames are asked for; choose 1 to 13"),
        ({"length": -8}, "length: -8 frames"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_frame_is_touched(monkeypatch, inputs, message):
    monkeypatch.delattr(clips.comfy.utils, "common_upscale")
    with pytest.raises(ValueError, match=message):
        make_shot(**{"pose": noise(13), "background": noise(13), **inputs})


# --- the mask, whose outline scaling would show again


@pytest.fixture(scope="module")
def dancer(dance):
    """The outline of a real person: [4, 350, 350] of 0 and 1."""
    with torch.inference_mode():
        mask = mask_nodes.SegmentCharacter.execute(dance[::11][:4], feather=0).result[0]
    return (mask > 0.5).float()


def scaled(mask, width, height):
    return (comfy.utils.common_upscale(mask[:, None], width, height, "bilinear", "center")[:, 0] > 0.5).float()


def shot_mask(mask, width, height, **more):
    """The mask of a shot of ``width``×``height`` px, from one on a video of another size."""
    background = torch.zeros(1, 1, 1, 3).expand(*mask.shape, 3)
    pose = torch.zeros(len(mask), height, width, 3)
    return nodes.Shot.execute(pose, background, mask=mask, width=width, height=height, **more).result[0].mask


def iou(one, other):
    one, other = one > 0.5, other > 0.5
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("source", [480, 1080])
@pytest.mark.parametrize("width", [128, 512])
def test_a_shot_hides_the_outline_as_much_as_training_does_whatever_the_source(dancer, source, width):
    """scripts/bench_masks.py has more sizes and clips."""
    outline, rng = scaled(dancer, width, width), np.random.default_rng(0)
    draws = (masks.shape_agnostic(outline, *masks.random_block(rng, outline), steady=True) for _ in range(200))
    trained = np.mean([iou(outline, draw) for draw in draws])
    blocks = mask_nodes.ShapeAgnosticMask.execute(scaled(dancer, source, source)).result[0]
    assert iou(outline, shot_mask(blocks, width, width)) == pytest.approx(trained, abs=0.05)


def test_a_mask_has_no_soft_rim_and_covers_the_person(dancer):
    mask = shot_mask(dancer, 128, 128)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert (mask >= scaled(dancer, 128, 128)).float().mean() > 0.999  # another way to scale moves single pixels


@pytest.mark.parametrize("source", [64, 480])
def test_blocks_have_the_size_that_was_asked_for_in_pixels_of_the_shot(source):
    """A dot becomes nothing larger than itself; the corners of a diagonal line show the blocks."""
    line = torch.eye(source)[None].expand(2, -1, -1)
    mask = shot_mask(masks.grow(line, source // 32), 160, 160, mask_block=20)
    inside = mask[0, 1:-1, 1:-1]
    edges = (inside.diff(dim=1) != 0).any(0).nonzero()[:, 0] + 2
    assert len(set((edges % 20).tolist())) <= 2  # of the grid, and of the box around the line


def test_a_block_of_one_pixel_keeps_the_outline(dancer):
    mask = shot_mask(dancer, 352, 352, mask_block=1)
    assert iou(mask, scaled(dancer, 352, 352)) > 0.97  # a line of pixels, by another way to scale


# --- cutting


def test_a_window_cuts_all_that_changes_with_time_and_keeps_the_rest():
    shot = make_shot(numbered(29), numbered(29), REFERENCE, numbered(29)[..., 0])
    window = shot.window(8, 13)
    assert window.length == 13 and (window.width, window.height) == (32, 16)
    for frames in (window.pose, window.background, window.mask):
        assert numbers(frames) == list(range(8, 21))
    assert window.reference is REFERENCE


def test_a_still_background_and_a_still_mask_stay_as_they_are():
    still = make_shot(numbered(29), noise(1))
    assert still.window(8, 13).background is still.background
    masked = make_shot(numbered(29), numbered(29), mask=torch.ones(1, 16, 32))
    assert masked.window(8, 13).mask is masked.mask


def test_windows_of_windows_count_from_the_window():
    shot = make_shot(numbered(45), noise(1))
    assert numbers(shot.window(10, 20).window(5, 3).pose) == [15, 16, 17]


def test_length_0_reaches_to_the_end():
    assert numbers(make_shot(numbered(21), noise(1)).window(8).pose) == list(range(8, 21))


def test_a_window_leaves_the_shot_as_it_was():
    shot = make_shot(numbered(21), noise(1))
    shot.window(8, 5)
    assert shot.length == 21 and len(shot.pose) == 21


@pytest.mark.parametrize(
    ("start", "length", "message"),
    [
        (-1, 5, "start: frame -1 is outside the shot. Its frames are 0 to 20"),
        (21, 5, "start: frame 21 is outside"),
        (17, 5, "length: 5 frames from frame 17 on reach outside the shot of 21 frames. At most 4"),
        (0, -5, "length: -5 frames"),
    ],
)
def test_a_window_outside_the_shot_is_refused(start, length, message):
    with pytest.raises(ValueError, match=message):
        make_shot(numbered(21), noise(1)).window(start, length)


def test_a_window_beyond_the_end_holds_the_last_frame():
    """Also where only one frame of an environment video is left: it is still a video."""
    shot = make_shot(numbered(21), numbered(21), mask=numbered(21)[..., 0])
    window = shot.window(20, 5, hold=True)
    assert window.length == 5 and window.has_environment
    for frames in (window.pose, window.background, window.mask):
        assert numbers(frames) == [20] * 5


def test_the_first_frame_belongs_to_the_window_that_begins_the_shot():
    shot = make_shot(noise(21), noise(1), start=noise(1))
    assert shot.window(0, 5).start is shot.start and shot.window(1, 5).start is None


# --- encoding


def test_a_start_picture_becomes_the_first_latent_frame_and_nothing_follows(vae):
    shot = make_shot(noise(13), noise(1))
    encoded = clips.encode(shot, vae)
    assert encoded.background.shape == encoded.pose.shape == encoded.empty_latent().shape == (1, 16, 4, 2, 4)
    assert torch.equal(encoded.background[:, :, :1], latents.encode_frames(vae, shot.background))
    assert encoded.background[:, :, :1].std() > 0.01 and not encoded.background[:, :, 1:].any()


def test_an_environment_video_is_encoded_in_every_frame(vae):
    shot = make_shot(noise(13), noise(13))
    encoded = clips.encode(shot, vae)
    assert torch.equal(encoded.background, latents.encode_frames(vae, shot.background))


def test_a_first_frame_stands_before_the_background_whatever_that_is(vae):
    start = noise(1)
    still = clips.encode(make_shot(noise(5), noise(1), start=start), vae).background
    assert torch.equal(still[:, :, :1], latents.encode_frames(vae, start)) and not still[:, :, 1:].any()
    video, mask = noise(5), torch.ones(5, 16, 32)
    moving = clips.encode(make_shot(noise(5), video, mask=mask, start=start), vae).background
    blanked = clips.blank(video, mask)
    assert torch.equal(moving, latents.encode_frames(vae, torch.cat([start, blanked[1:]])))


def test_the_pose_goes_the_same_way(vae):
    shot = make_shot(noise(13), noise(1))
    assert torch.equal(clips.encode(shot, vae).pose, latents.encode_frames(vae, shot.pose))


def test_what_is_behind_the_mask_does_not_reach_the_model(vae):
    mask = torch.zeros(13, 16, 32)
    mask[:, 4:12, 8:24] = 1
    first, second = noise(13), noise(13)
    second = torch.where(mask[..., None] == 1, second, first)
    pose = noise(13)
    one, other = (clips.encode(make_shot(pose, video, mask=mask), vae).background for video in (first, second))
    assert torch.equal(one, other)
    unmasked = [clips.encode(make_shot(pose, video), vae).background for video in (first, second)]
    assert not torch.equal(*unmasked)


def test_the_masked_region_is_zero_in_the_vaes_input():
    """CogVideoX's VAE takes 2·x - 1."""
    blanked = clips.blank(noise(5), torch.ones(1, 16, 32))
    assert not (blanked * 2 - 1).any()


def test_a_soft_mask_fades():
    frames = torch.ones(1, 1, 3, 3)
    blanked = clips.blank(frames, torch.tensor([[[0.0, 0.5, 1.0]]]))
    torch.testing.assert_close(blanked[0, 0, :, 0], torch.tensor([1.0, 0.75, 0.5]))


def test_a_window_of_another_length_is_not_encoded(vae):
    with pytest.raises(ValueError, match=r"length: 12 frames .* Use 13"):
        clips.encode(make_shot(noise(13), noise(1)).window(0, 12), vae)


def test_a_shot_without_pose_and_reference_is_plain_image_to_video(vae):
    encoded = clips.encode(Shot(length=5, background=noise(1)), vae)
    assert encoded.conditions(controlled=True).keys() == {"concat_latent_image"}


# --- the nodes


def text():
    return [[torch.zeros(1, 3, 24), {"other": 1}]]


def test_shot_node_says_what_it_did():
    out = nodes.Shot.execute(noise(48, 64, 32), noise(1, 100, 50), REFERENCE, torch.ones(1, 5, 5), 32, 16)
    shot, report = out.result
    assert shot.length == 48 and shot.reference is REFERENCE
    assert report.splitlines() == [
        "Shot: 32×16 px, 48 frames",
        "Background: one picture, fitted from 100×50",
        "Character: from the reference",
        "Mask: not used, the background is one picture",
    ]
    assert out.ui["text"] == (report,)
    conditions = {"pose": [0, 48], "environment": None, "reference": True}
    assert out.ui["aa_timeline"] == [{"total": 48, "windows": [], "conditions": conditions}]


@pytest.fixture(scope="module")
def danced(dance):
    """What the artist wires: five frames of the dance as a drawn pose, 352×352 px."""
    with torch.inference_mode():
        pose = pose_nodes.ExtractPose.execute(dance[:20:4], "blazepose", 0.0).result[0]
        return drawing.draw(PoseTrack.from_openpose(pose), 352, 352)


def test_a_start_picture_is_used_where_the_character_stands_as_in_the_first_pose(danced, dance):
    shot, report = nodes.Shot.execute(danced, noise(1, 350, 350), start=dance[:1]).result
    assert torch.equal(shot.start, make_shot(danced, dance[:1]).background)
    assert report.endswith("Start: the picture, which shows the character as the first pose does")


@pytest.mark.parametrize("other", ["mirrored", "later", "empty"])
def test_otherwise_the_shot_starts_from_the_background_alone(danced, dance, other):
    start = {"mirrored": dance[:1].flip(2), "later": dance[30:31], "empty": torch.zeros(1, 350, 350, 3)}[other]
    shot, report = nodes.Shot.execute(danced, noise(1, 350, 350), start=start).result
    assert shot.start is None
    assert "Start: the background alone. In the start picture, nobody stands as in the first pose (" in report


def test_encode_shot_strengthens_pose_and_character_by_guidance(vae):
    shot = make_shot(noise(13), noise(1), REFERENCE)
    positive, negative, latent = nodes.EncodeShot.execute(shot, vae, text(), text()).result
    shared = {"other", "concat_latent_image", "image_latent_scale", "hooks"}
    assert positive[0][1].keys() == shared | {"aa_pose", "aa_reference"}
    assert negative[0][1].keys() == shared
    assert positive[0][1]["aa_reference"] is REFERENCE
    assert latent["samples"].shape == (1, 16, 4, 2, 4) and not latent["samples"].any()


def test_encode_shot_leaves_the_conditioning_it_got_alone(vae):
    given = text()
    nodes.EncodeShot.execute(make_shot(noise(5), noise(1)), vae, given, given)
    assert given[0][1] == {"other": 1}


def test_encode_shot_takes_a_part_and_says_which(vae):
    shot = make_shot(noise(29), noise(29))
    out = nodes.EncodeShot.execute(shot, vae, text(), text(), 8, 20)
    positive, _, latent = out.result
    assert latent["samples"].shape[2] == latents.latent_frames(13)
    assert torch.equal(positive[0][1]["aa_pose"], latents.encode_frames(vae, shot.pose[8:21]))
    assert out.ui.as_dict()["text"] == ("Frames 8 to 20: asked 20, using 13 (8k+5)",)


@pytest.mark.parametrize(("start", "length", "message"), [(40, 0, "start: frame 40"), (0, 40, "length: 40")])
def test_encode_shot_refuses_a_part_outside_the_shot(vae, start, length, message):
    with pytest.raises(ValueError, match=message):
        nodes.EncodeShot.execute(make_shot(noise(13), noise(1)), vae, text(), text(), start, length)


def test_encode_shot_refuses_another_kind_of_vae():
    with pytest.raises(ValueError, match="vae: .* 16 latent channels.* with 12"):
        nodes.EncodeShot.execute(make_shot(noise(5), noise(1)), toys.taehv_vae(channels=12), text(), text())


def test_no_prompt_is_zeros_of_the_models_text_width():
    ((tokens, values),) = nodes.NoPrompt.execute(toys.cogvideox_patcher(text_embed_dim=40)).result[0]
    assert tokens.shape == (1, 16, 40) and not tokens.any() and values == {}


def test_no_prompt_for_a_t5_model_has_the_226_tokens_of_training():
    ((tokens, _),) = nodes.NoPrompt.execute(toys.cogvideox_patcher(text_embed_dim=4096, num_layers=1)).result[0]
    assert tokens.shape == (1, 226, 4096)


def test_no_prompt_names_the_socket_of_a_wrong_model():
    with pytest.raises(ValueError, match="model: .*1.5-5B-I2V"):
        nodes.NoPrompt.execute(toys.cogvideox_patcher(in_channels=16))
