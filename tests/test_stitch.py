"""Clips that were rendered apart become one video again, and what does not belong together is refused."""

import json
from fractions import Fraction

import av
import comfy.model_management
import comfy.utils
import numpy as np
import pytest
import scene
import torch
from animate_anywhere.nodes import stitch as nodes
from animate_anywhere.vision import levels
from animate_anywhere.vision.stitch import FIND, stitch
from comfy_api.latest import InputImpl, Types, _io
from comfy_execution.validation import validate_node_input

SIZE = (90, 160)
OTHER_LIGHT = levels.Level(np.array([0.85, 1.1, 1.15]), np.array([0.02, -0.01, 0.02]))  # 9 ΔE
STEP = 1 / 255


@pytest.fixture(scope="module")
def wall():
    return 0.8 * scene.wall(2 * SIZE[0], 2 * SIZE[1]) + 0.1


def video(wall, kind="pan", frames=40):
    """Somebody in red walks through a view of a wall."""
    shot = scene.film(wall, scene.camera(kind, frames, SIZE), SIZE)
    return scene.step_in(shot, scene.walker(frames, SIZE))


def lit(clip, level=OTHER_LIGHT):
    return levels.apply(clip, level, level)


def noisy(clip, seed):
    noise = 0.03 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed))
    return (clip + noise).clamp(0, 1)


def apart(one, other):
    return float((one - other).abs().mean())


# --- what comes out


@pytest.mark.parametrize("kind", ["pan", "zoom", "still"])
def test_a_video_cut_into_clips_is_whole_again(wall, kind):
    """Overlaps of 6, 0 and 1 are found, one clip in another light, whatever the camera does."""
    whole = video(wall, kind)
    made = stitch([whole[:16], lit(whole[10:24]), whole[24:33], whole[32:]])
    assert [seam.overlap for seam in made.seams] == [6, 0, 1]
    assert [seam.start for seam in made.seams] == [10, 24, 32]
    assert made.frames.shape == whole.shape
    # A clip that has no frame in common is read across a step of the camera, so that the last ones are off by more.
    for part in (slice(0, 10), slice(10, 24), slice(24, 40)):
        assert apart(made.frames[part], whole[part]) < STEP
    assert made.seams[0].drift > 5 and made.seams[0].difference < 1


def test_clips_drawn_anew_overlap_where_their_places_agree(wall):
    """Noise of 8 steps is more than a step of the camera changes, and no two frames are the same."""
    whole = video(wall)
    made = stitch([noisy(whole[:20], 1), noisy(lit(whole[11:]), 2)])
    assert made.seams[0].overlap == 9 and len(made.frames) == 40


def test_a_fade_goes_evenly_from_clip_to_clip():
    ramp = torch.linspace(0.2, 0.6, 32)[None, None, :, None].expand(6, 16, 32, 3)
    made = stitch([ramp, ramp + 0.04], overlap=3, strength=0)
    expected = torch.tensor([0, 0, 0, 0.01, 0.02, 0.03, 0.04, 0.04, 0.04])
    assert torch.allclose((made.frames - ramp[:1]).mean((1, 2, 3)), expected, atol=1e-6)


def test_without_a_fade_the_earlier_clip_stays(wall):
    whole = video(wall)
    made = stitch([whole[:20], noisy(whole[15:], 1)], blend=False, strength=0)
    assert torch.equal(made.frames[:20], whole[:20]) and torch.equal(made.frames[20:], noisy(whole[15:], 1)[5:])


def test_colours_can_be_left_or_levelled_in_part(wall):
    whole = video(wall)
    clips = [whole[:20], lit(whole[15:])]
    left, half, level = (apart(stitch(clips, strength=s).frames[25:], whole[25:]) for s in (0, 0.5, 1))
    assert left > 5 * STEP and half == pytest.approx(left / 2, rel=0.2) and level < STEP


def test_an_overlap_of_none_changes_no_bit_whatever_is_shown():
    clips = [torch.rand(3, 16, 32, 3), torch.rand(4, 16, 32, 3), torch.rand(1, 16, 32, 4)]
    made = stitch(clips, overlap=0)
    assert torch.equal(made.frames, torch.cat([*clips[:2], clips[2][..., :3]]))
    assert all(seam.difference is None and seam.level.is_identity for seam in made.seams)


def test_clips_that_stand_still_lose_no_frame():
    still = torch.rand(1, 16, 32, 3, generator=torch.manual_seed(0)).expand(5, -1, -1, -1)
    assert len(stitch([still, still]).frames) == 10


# --- what is refused


def test_another_scene_is_refused(wall):
    other = scene.film(scene.wall(180, 320, seed=7), scene.camera("pan", 12, SIZE), SIZE)
    with pytest.raises(
        ValueError, match=r"clips: clip2 does not continue clip1\. They differ by [\d.]+ steps of 255, and"
    ):
        whole = video(wall)
        stitch([whole[:20], whole[15:30], other])


def test_clips_in_the_wrong_order_are_refused(wall):
    whole = video(wall, "pan", 80)
    with pytest.raises(ValueError, match="clip1 does not continue clip0.*order"):
        stitch([whole[50:], whole[:40]])


def test_a_given_overlap_that_is_wrong_is_refused_with_the_right_one(wall):
    whole = scene.film(wall, scene.camera("pan", 80, SIZE), SIZE)
    with pytest.raises(ValueError, match="overlap: the first 30 frames of clip1 .* with an overlap of 5"):
        stitch([whole[:40], whole[35:]], overlap=30)


@pytest.mark.parametrize(
    ("lengths", "overlap", "message"),
    [
        ([5], 0, "at least 2 are needed"),
        ([5, 0], FIND, "clip1 is empty"),
        ([5, 5], -2, "overlap: -2 is not possible"),
        ([9, 5], 5, "of clip1 with its 5 frames, an overlap of 5 leaves none"),
        ([3, 9], 5, "before the 3 frames"),
    ],
)
def test_clips_that_cannot_be_joined_are_refused(lengths, overlap, message):
    with pytest.raises(ValueError, match=message):
        stitch([torch.zeros(length, 8, 8, 3) for length in lengths], overlap)


# --- the node


def stitched(*parts, **more):
    return nodes.StitchClips.execute({f"clip{i}": part for i, part in enumerate(parts)}, **more).result


def as_video(frames, rate):
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=Fraction(rate)))


def test_the_report_says_how_clips_join(wall):
    whole = video(wall)
    images, report, figures = stitched(whole[:20], lit(whole[15:]))
    assert len(images) == 40
    assert report.startswith("40 frames of 2 clips: 20 + 25\nclip1 from frame 15 on, 5 of its frames shared, ")
    assert report.endswith(" ΔE, levelled")
    figures = json.loads(figures)
    assert (figures["frames"], figures["width"], figures["height"], figures["fps"]) == (40, 160, 90, None)
    (seam,) = figures["seams"]
    assert (seam["clip"], seam["start"], seam["overlap"]) == (1, 15, 5) and seam["drift"] > 5
    assert np.allclose(seam["level"]["gain"], 1 / OTHER_LIGHT.gain, atol=0.02)


def test_videos_and_images_mix(wall):
    whole = video(wall)
    images, report, figures = stitched(as_video(whole[:20], 16), whole[15:30], as_video(whole[29:], "16.01"))
    assert len(images) == 40 and apart(images, whole) < STEP
    assert report.startswith("40 frames of 3 clips: 20 + 15 + 11, 16 a second")
    assert json.loads(figures)["fps"] == 16


def test_another_rate_is_refused_before_anything_is_decoded(wall, monkeypatch):
    whole = video(wall)
    monkeypatch.setattr(InputImpl.VideoFromComponents, "get_components", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr(InputImpl.VideoFromComponents, "get_frame_rate", lambda self: Fraction(rates[self]))
    monkeypatch.setattr(InputImpl.VideoFromComponents, "get_dimensions", lambda _: (160, 90))
    clips = [as_video(whole[:20], 16), as_video(whole[15:], 24)]
    rates = dict(zip(clips, (16, 24)))
    with pytest.raises(ValueError, match="clips: clip1 has 24 frames a second and clip0 16"):
        stitched(*clips)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="clip2 and clip0 differ in size: 16×8 px and 8×8 px"):
        stitched(torch.zeros(5, 8, 8, 3), torch.zeros(5, 8, 8, 3), torch.zeros(5, 8, 16, 3))
    with pytest.raises(ValueError, match="clip1 and clip0 differ in size: 16×8 px and 8×8 px"):
        stitched(as_video(torch.zeros(5, 8, 8, 3), 16), as_video(torch.zeros(5, 8, 16, 3), 16))


def filmed(path, width, height, degrees=0):
    """Four frames coded at ``width`` × ``height`` px, with a mark to turn them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if degrees:
            stream.set_display_rotation(degrees)
        for _ in range(4):
            grey = np.full((height, width, 3), 128, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return InputImpl.VideoFromFile(str(path))


@pytest.mark.parametrize(("degrees", "coded"), [(90, (64, 32)), (-90, (64, 32)), (180, (32, 64)), (0, (32, 64))])
def test_clips_that_are_shown_at_one_size_are_joined(tmp_path, degrees, coded):
    phone, upright = filmed(tmp_path / "a.mp4", *coded, degrees), filmed(tmp_path / "b.mp4", 32, 64)
    images = stitched(phone, upright, overlap=0)[0]
    assert images.shape == (8, 64, 32, 3)


def test_clips_that_are_coded_at_one_size_and_shown_at_others_are_refused_as_they_are_shown(tmp_path):
    phone, lying = filmed(tmp_path / "a.mp4", 64, 32, 90), filmed(tmp_path / "b.mp4", 64, 32)
    with pytest.raises(ValueError, match="clip1 and clip0 differ in size: 64×32 px and 32×64 px"):
        stitched(phone, lying)


def test_every_frame_moves_the_progress_and_cancel_stops(wall, monkeypatch):
    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, *_, **__: shown.append((done, total)))
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    whole = video(wall)
    stitched(whole[:20], whole[15:])
    assert shown[-1] == (90, 90) and [done for done, _ in shown] == sorted(done for done, _ in shown)
    shown.clear()
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        stitched(whole[:20], whole[15:])
    assert not shown


def test_a_queued_prompt_reaches_stitch_clips_through_its_growing_sockets():
    """The host takes "clips.clip0" of an API prompt apart; at least two are demanded. A prompt saved before videos
    could be wired and colours levelled still fits."""
    schema = nodes.StitchClips.INPUT_TYPES()
    assert "clips" in schema["required"]
    expanded, _, v3_data = _io.get_finalized_class_inputs(schema, {"clips.clip0": 1, "clips.clip1": 1, "overlap": 1})
    assert {"clips.clip0", "clips.clip1"} <= expanded["required"].keys()
    assert "clips.clip2" in expanded["optional"]
    assert all(validate_node_input(kind, expanded["required"]["clips.clip0"][0]) for kind in ("IMAGE", "VIDEO"))
    nested = _io.build_nested_inputs({"clips.clip0": "a", "clips.clip1": "b", "overlap": 0}, v3_data)
    assert nested == {"clips": {"clip0": "a", "clip1": "b"}, "overlap": 0}
