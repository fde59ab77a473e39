"""The clean plate, against stages whose empty background is known."""

import tracemalloc

import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import background as nodes
from animate_anywhere.vision import mask as masks
from animate_anywhere.vision import plate
from scene import RED, camera, film, past_posts, psnr, step_in, walker, wall

SIZE = (160, 240)
FRAMES = 24
GROW = 4


def stage(kind: str, mask: torch.Tensor | None = None, frames: int = FRAMES):
    """Empty background, the same with somebody in front, the mask, and the camera's true path."""
    mask = walker(frames, SIZE) if mask is None else mask
    path = camera(kind, frames, SIZE)
    background = film(wall(2 * SIZE[0], 2 * SIZE[1]), path, SIZE)
    return background, step_in(background, mask), mask, path


def swayer(frames: int = FRAMES) -> torch.Tensor:
    """Somebody who hardly leaves the place: part of the background is never seen."""
    return walker(frames, SIZE, 0.47, 0.53)


@pytest.mark.parametrize("kind", ["still", "pan", "zoom"])
def test_other_frames_fill_far_better_than_inpainting_each_alone(kind):
    background, frames, mask, _ = stage(kind)
    hidden = masks.grow(mask, GROW)
    temporal = plate.clean_background(frames, mask, grow=GROW)
    telea = plate.clean_background(frames, mask, grow=GROW, method="telea")
    assert temporal.unfilled.sum() == 0  # somebody who walks away shows everything
    gain = psnr(temporal.frames, background, hidden) - psnr(telea.frames, background, hidden)
    assert gain > 15  # 6 dB would halve the error; copying what was really there does much better


def test_a_standing_camera_copies_without_resampling():
    background, frames, mask, _ = stage("still")
    assert torch.allclose(plate.clean_background(frames, mask).frames, background, atol=1e-6)


def test_unfilled_is_exactly_what_no_frame_of_a_standing_camera_saw():
    _, frames, mask, _ = stage("still", swayer())
    result = plate.clean_background(frames, mask, grow=GROW)
    never = masks.grow(mask, GROW).min(0).values
    assert never.sum() > 500
    assert torch.equal(result.unfilled, never.expand(FRAMES, -1, -1))
    assert np.array_equal(result.invented, np.full(FRAMES, int(never.sum())))


@pytest.mark.parametrize("kind", ["pan", "zoom"])
def test_unfilled_is_what_no_frame_of_a_moving_camera_saw_to_two_pixels(kind):
    _, frames, mask, path = stage(kind, swayer(10), frames=10)
    hidden = masks.grow(mask, GROW)
    result = plate.clean_background(frames, mask, grow=GROW)
    truth = never_seen(hidden, path)
    assert truth.sum() > 1000
    # Nothing is claimed to be seen that was not, to a pixel of the alignment's error.
    assert (masks.grow(truth, -1) <= result.unfilled).all()
    # What is marked although it was seen lies within two pixels of it: one that interpolation needs on either side, and
    # again the alignment. The few left over are slits that are themselves only two or three pixels wide.
    assert (result.unfilled > masks.grow(truth, 2)).sum() < 0.005 * truth.sum()


def never_seen(hidden: torch.Tensor, path: np.ndarray) -> torch.Tensor:
    """Pixels of ``hidden`` [T, H, W] that are hidden, or out of the picture, in all other frames, by the true path."""
    count, height, width = hidden.shape
    y, x = np.mgrid[:height, :width]
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    never = hidden.clone().reshape(count, -1)
    for t in range(count):
        for other in range(count):
            there = np.linalg.inv(path[other]) @ path[t] @ points
            column, row = np.rint(there[:2] / there[2]).astype(int)
            inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
            visible = inside & (hidden[other].numpy()[row * inside, column * inside] == 0)
            never[t, torch.from_numpy(visible)] = 0
    return never.reshape(hidden.shape)


@pytest.mark.parametrize("method", plate.METHODS)
def test_pixels_away_from_the_mask_are_the_inputs_own(method):
    _, frames, mask, _ = stage("pan", swayer())
    given = frames.clone()
    result = plate.clean_background(frames, mask, grow=GROW, method=method)
    away = masks.grow(mask, GROW + plate.EDGE + 1) == 0
    assert torch.equal(result.frames[away], frames[away])
    assert not torch.equal(result.frames, frames)
    assert torch.equal(frames, given)


def test_nobody_in_front_leaves_the_video_unchanged():
    frames = torch.rand(3, 40, 60, 3)
    for method in plate.METHODS:
        result = plate.clean_background(frames, torch.zeros(3, 40, 60), method=method)
        assert torch.equal(result.frames, frames)
        assert result.unfilled.sum() == 0


def test_what_is_invented_stays_the_same_from_frame_to_frame():
    _, frames, mask, _ = stage("still", swayer())
    temporal = plate.clean_background(frames, mask, grow=GROW)
    telea = plate.clean_background(frames, mask, grow=GROW, method="telea")
    where = temporal.unfilled[1:] > 0

    def flicker(frames):
        return frames.diff(dim=0)[where].abs().mean()

    assert flicker(temporal.frames) < 1e-3 < flicker(telea.frames)


def test_a_lapse_of_the_mask_does_not_bring_the_person_back():
    _, frames, mask, _ = stage("still", swayer())
    mask[10:12] = 0
    result = plate.clean_background(frames, mask, grow=GROW)
    others = [t for t in range(FRAMES) if t not in (10, 11)]
    where = masks.grow(mask, GROW)[others] > 0
    red = (result.frames[others] - RED).abs().amax(-1) < 0.1
    assert red[where].float().mean() < 0.001


def test_a_change_of_light_is_followed():
    background, _, mask, _ = stage("still")
    background = (background * 0.6 + torch.linspace(0, 0.3, FRAMES)[:, None, None, None]).clamp(0, 1)
    result = plate.clean_background(step_in(background, mask), mask, grow=GROW)
    # Without a correction a neighbour 10 frames away would be off by 0.13.
    assert (result.frames - background)[masks.grow(mask, GROW) > 0].abs().mean() < 0.01


def test_a_frame_that_shows_no_background_is_filled_from_its_neighbours():
    mask = walker(FRAMES, SIZE)
    mask[7] = 1
    background, frames, mask, _ = stage("still", mask)
    result = plate.clean_background(frames, mask, grow=GROW)
    assert result.alignment.blind == (7,)
    assert torch.allclose(result.frames, background, atol=1e-6)
    alone = plate.clean_background(frames, mask, grow=GROW, method="telea").frames
    assert torch.equal(alone[7], alone[6])


def test_a_cut_mixes_nothing():
    first, second = (film(wall(*SIZE, seed), np.tile(np.eye(3), (10, 1, 1)), SIZE) for seed in (0, 1))
    background = torch.cat([first, second])
    mask = walker(10, SIZE).repeat(2, 1, 1)
    result = plate.clean_background(step_in(background, mask), mask, grow=GROW)
    assert result.alignment.cuts == (10,)
    assert psnr(result.frames, background, masks.grow(mask, GROW)) > 40


def test_a_background_without_texture_is_filled_as_if_the_camera_stood():
    background = torch.linspace(0.2, 0.8, SIZE[1]).expand(6, SIZE[0], SIZE[1])[..., None].repeat(1, 1, 1, 3)
    mask = walker(6, SIZE, 0.2, 0.8)
    result = plate.clean_background(step_in(background, mask), mask, grow=GROW)
    assert len(result.alignment.blind) == 6
    assert torch.allclose(result.frames, background, atol=1e-6)


def test_one_mask_and_a_still_picture_are_inpainted():
    frames = film(wall(*SIZE), np.eye(3)[None], SIZE)
    mask = walker(1, SIZE)[0]
    result = plate.clean_background(frames, mask, grow=GROW)
    assert torch.equal(result.unfilled, masks.grow(mask, GROW))
    assert result.frames.shape == (1, *SIZE, 3)


def test_the_fourth_channel_of_a_picture_is_left_out():
    assert plate.clean_background(torch.rand(2, 20, 20, 4), torch.zeros(2, 20, 20)).frames.shape == (2, 20, 20, 3)


@pytest.mark.parametrize("method", plate.METHODS)
def test_progress_counts_to_its_promise(method):
    _, frames, mask, _ = stage("still", swayer(5), frames=5)
    done = []
    plate.clean_background(frames, mask, done.append, method=method)
    assert done == sorted(done)
    assert done[-1] == plate.steps(5, method)


def test_a_longer_video_takes_no_more_memory_beside_what_goes_in_and_out(monkeypatch):
    monkeypatch.setattr(plate, "PLANNED", 20_000)  # what bounds the plan of a long video; so this one is long
    size, taken = (60, 100), []
    for count in (30, 90):
        mask = walker(count, size)
        frames = step_in(film(wall(2 * size[0], 400), camera("pan", count, size), size), mask)
        tracemalloc.start()
        result = plate.clean_background(frames, mask)
        taken.append(tracemalloc.get_traced_memory()[1] - result.frames.nbytes - result.unfilled.nbytes)
        tracemalloc.stop()
    # Where points were found is kept, at most 4 kB a frame of any size. One byte a pixel would be 6 kB of this one.
    assert (taken[1] - taken[0]) / 60 < 5_000


@pytest.mark.parametrize("after", [3, FRAMES + 3])
def test_cancelling_stops_while_aligning_and_while_filling(after):
    _, frames, mask, _ = stage("still")
    calls = []

    def cancel(done):
        calls.append(done)
        if done >= after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        plate.clean_background(frames, mask, cancel)
    assert calls[-1] == after


@pytest.mark.parametrize(
    ("frames", "mask", "options", "message"),
    [
        ((0, 20, 20, 3), (1, 20, 20), {}, "images: the video is empty"),
        ((4, 20, 20, 3), (3, 20, 20), {}, "mask: it has 3 frames, but images have 4"),
        ((4, 20, 20, 3), (4, 20, 22), {}, "mask: its size is 22×20 pixels, but images are 20×20"),
        ((4, 20, 20, 3), (4, 20, 20), {}, "mask: .*covers every frame completely"),
        ((4, 20, 20, 3), (4, 20, 20), {"method": "magic"}, "method: 'magic'"),
        ((4, 20, 20, 3), (4, 20, 20), {"grow": -1}, "grow is -1"),
    ],
)
def test_bad_input_is_named_before_any_work(frames, mask, options, message):
    def never(done):
        raise AssertionError("work was done")

    with pytest.raises(ValueError, match=message):
        plate.clean_background(torch.ones(frames), torch.ones(mask), never, **options)


def test_node_gives_video_first_frame_unfilled_and_report():
    _, frames, mask, _ = stage("pan", swayer(10), frames=10)
    output = nodes.InpaintBackground.execute(frames, mask, grow=GROW)
    video, background, unfilled, report = output.result
    assert video.shape == frames.shape
    assert torch.equal(background, video[:1])
    assert unfilled.shape == mask.shape
    share = unfilled.sum() / masks.grow(mask, GROW).sum()
    assert f"invented: {share:.1%}" in report
    motion = float(report.split("moves ")[1].split(" px")[0])
    assert motion == pytest.approx(1.85, abs=0.1)  # 1.7 px sideways, and the swing up and down
    assert output.ui.as_dict() == {"text": (report,)}


@pytest.mark.parametrize(
    ("images", "mask", "method", "told"),
    [
        (torch.rand(2, 40, 60, 3), torch.zeros(2, 40, 60), "temporal", "unchanged"),
        (torch.full((3, 40, 60, 3), 0.5), walker(3, (40, 60)), "temporal", "in frames 0-2"),
        (torch.full((3, 40, 60, 3), 0.5), walker(3, (40, 60)), "telea", "each frame alone"),
    ],
)
def test_node_reports_what_could_not_be_done(images, mask, method, told):
    assert told in nodes.InpaintBackground.execute(images, mask, method=method).result[3]


def test_node_reports_a_cut():
    frames = torch.cat([film(wall(*SIZE, seed), np.tile(np.eye(3), (3, 1, 1)), SIZE) for seed in (0, 1)])
    assert "Cut before frame 3" in nodes.InpaintBackground.execute(frames, walker(6, SIZE)).result[3]


@pytest.mark.parametrize("method", plate.METHODS)
def test_node_stops_when_the_artist_cancels(method):
    _, frames, mask, _ = stage("still", swayer(5), frames=5)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        nodes.InpaintBackground.execute(frames, mask, method=method)


def test_node_names_an_empty_video():
    with pytest.raises(ValueError, match="images: there is no picture"):
        nodes.InpaintBackground.execute(torch.zeros(0, 20, 20, 3), torch.zeros(1, 20, 20))


def with_shadow(frames, mask, side: int = 14):
    """The frames with a soft shadow to the right of who is masked, two fifths of the light at its darkest."""
    dark = torch.stack([masks.grow(one, side)[0] for one in mask.roll(side // 2, 2)])
    dark = masks.feather(dark, 5) * (1 - mask)
    return frames * (1 - 0.4 * dark)[..., None], dark


@pytest.mark.parametrize("kind", ["still", "pan"])
def test_a_shadow_that_walks_along_is_taken_off(kind):
    background, _, mask, _ = stage(kind)
    shaded, dark = with_shadow(background, mask)
    frames = step_in(shaded, mask)
    kept, lifted = (plate.clean_background(frames, mask, grow=GROW, shadow=reach).frames for reach in (0, 40))
    where = (dark > 0.3) & (masks.grow(mask, GROW + plate.EDGE) == 0)
    assert where.sum() > 5000
    assert psnr(lifted, background, where) > psnr(kept, background, where) + 10


def test_without_a_shadow_the_surroundings_stay_as_they_are():
    _, frames, mask, _ = stage("still")
    away = masks.grow(mask, GROW + plate.EDGE + 1) == 0
    result = plate.clean_background(frames, mask, grow=GROW, shadow=40)
    assert torch.equal(result.frames[away], frames[away])


def test_a_thing_beside_the_person_that_differs_in_colour_is_no_shadow():
    background, _, mask, _ = stage("still")
    bag = mask.roll(SIZE[1] // 8, 2) * (1 - mask)  # carried along, dark blue
    frames = torch.where(bag[..., None] > 0, torch.tensor([0.05, 0.05, 0.5]), step_in(background, mask))
    result = plate.clean_background(frames, mask, grow=GROW, shadow=40)
    where = (bag > 0) & (masks.grow(mask, GROW + plate.EDGE) == 0)
    assert (result.frames - frames)[where].abs().mean() < 0.02


def test_large_holes_are_filled_by_what_is_asked_for_and_specks_are_not():
    _, frames, mask, _ = stage("still", swayer(6), frames=6)
    asked = []

    def green(picture, hole):
        asked.append((picture.shape, int(hole.sum())))
        return np.where(hole[..., None], np.float32([0, 1, 0]), picture)

    result = plate.clean_background(frames, mask, grow=GROW, fill=green)
    never = result.unfilled > 0
    assert (result.frames[never] == torch.tensor([0.0, 1.0, 0.0])).all()
    assert len(asked) == 1  # the camera stands: once for all frames
    (height, width, _), count = asked[0]
    assert count == never[0].sum()
    assert height == SIZE[0] and width > 2 * plate.LEAST_CONTEXT  # it sees what is around


def test_negative_shadow_is_named():
    with pytest.raises(ValueError, match="shadow is -1"):
        plate.clean_background(torch.ones(2, 20, 20, 3), torch.zeros(2, 20, 20), shadow=-1)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty models folder."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, nodes.LAMA.folder, raising=False)
    return tmp_path


def test_node_says_that_lama_is_missing_and_auto_goes_on_without(models):
    _, frames, mask, _ = stage("still", swayer(4), frames=4)
    with pytest.raises(ValueError, match=r"invent: its weights are missing. Put big-lama.pt .*inpaint\."):
        nodes.InpaintBackground.execute(frames, mask, invent="lama")
    auto, telea = (nodes.InpaintBackground.execute(frames, mask, invent=way).result[0] for way in ("auto", "telea"))
    assert torch.equal(auto, telea)


def test_node_fills_with_lama_where_its_file_is_there(models, monkeypatch):
    class Grey:
        def fill(self, picture, hole):
            return torch.where(hole[..., None], 0.5, picture)

    (models / "inpaint").mkdir()
    (models / "inpaint" / "big-lama.pt").touch()
    loaded = []
    monkeypatch.setattr(nodes.inpainter, "load", lambda path, _: loaded.append(path.name) or Grey())
    _, frames, mask, _ = stage("still", swayer(4), frames=4)
    video, _, unfilled, _ = nodes.InpaintBackground.execute(frames, mask, grow=GROW).result
    assert loaded == ["big-lama.pt"]
    assert (video[unfilled > 0] == 0.5).all()
    nodes.InpaintBackground.execute(frames, torch.zeros_like(mask))
    assert len(loaded) == 1  # nothing to fill, nothing loaded


def test_node_reports_a_camera_that_walks():
    background = past_posts(16, (120, 200))
    mask = walker(16, (120, 200))
    assert "near and far" in nodes.InpaintBackground.execute(step_in(background, mask), mask, grow=GROW).result[3]
