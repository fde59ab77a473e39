"""Tracks between the nodes, and Draw Tracks as the graph calls it."""

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.nodes.tracks import DrawTracks
from animate_anywhere.vision.tracks import Tracks
from comfy_extras.nodes_wanmove import GenerateTracks

WIDTH, HEIGHT = 320, 180


def tracks(frames: int = 5, *, size: bool = True) -> dict:
    """Three points that go right by 10 px a frame; the second is hidden in frame 1."""
    path = np.zeros((frames, 3, 2), np.float32)
    path[..., 0] = 100 + 10 * np.arange(frames)[:, None]
    path[..., 1] = 40, 90, 140
    visible = np.ones((frames, 3), bool)
    visible[1, 1] = False
    return Tracks(path, visible, WIDTH * size, HEIGHT * size).to_host()


def centre(picture) -> tuple[float, float]:
    """The middle of what is drawn in ``picture`` [H, W, 3], px from the corner."""
    weight = picture.amax(dim=-1)
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in weight.shape), indexing="ij")
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


def lit(picture) -> int:
    return int((picture.amax(dim=-1) > 0.5).sum())


def test_each_visible_point_is_a_disc_at_its_place():
    images = DrawTracks.execute(tracks(), radius=5.0)[0]
    assert images.shape == (5, HEIGHT, WIDTH, 3)
    assert lit(images[0]) == pytest.approx(3 * np.pi * 25, rel=0.1)
    assert lit(images[1]) == pytest.approx(2 * np.pi * 25, rel=0.1)
    assert centre(images[2]) == pytest.approx((120, 90), abs=0.3)


def test_a_point_keeps_its_colour_and_no_two_have_the_same():
    images = DrawTracks.execute(tracks())[0]
    colours = [[images[t, y, 100 + 10 * t] for y in (40, 90, 140)] for t in (0, 4)]
    for before, after in zip(*colours):
        assert torch.equal(before, after)
    assert min((a - b).abs().max() for a, b in zip(colours[0], colours[0][1:])) > 0.5


def test_nothing_is_drawn_where_the_character_is():
    """M = (1 - α) · T."""
    mask = torch.zeros(5, HEIGHT, WIDTH)
    mask[:, :60] = 1
    mask[:, 60:120] = 0.5
    plain, images = DrawTracks.execute(tracks())[0], DrawTracks.execute(tracks(), mask=mask)[0]
    assert torch.allclose(images, plain * (1 - mask)[..., None])
    assert images[0, 40, 100].max() == 0 and images[0, 90, 100].max() == pytest.approx(0.5)
    assert torch.equal(DrawTracks.execute(tracks(), mask=mask[0])[0], images)  # one mask serves for all


def test_sizes_scale_with_the_canvas():
    once, twice = DrawTracks.execute(tracks())[0], DrawTracks.execute(tracks(), 2 * WIDTH, 2 * HEIGHT)[0]
    assert twice.shape[1:3] == (2 * HEIGHT, 2 * WIDTH)
    assert lit(twice[0]) == pytest.approx(4 * lit(once[0]), rel=0.15)
    assert centre(twice[0]) == pytest.approx((200, 180), abs=0.5)


def test_a_trail_shows_the_way_and_ends_where_the_point_was_hidden():
    plain, trailed = DrawTracks.execute(tracks())[0], DrawTracks.execute(tracks(), trail=3)[0]
    assert lit(trailed[0]) == lit(plain[0])
    assert trailed[3, 40, 105].max() > 0.1 and plain[3, 40, 105].max() == 0
    assert trailed[3, 90, 105].max() == 0 and trailed[3, 90, 125].max() > 0.1


def test_tracks_of_the_host_are_drawn():
    given = GenerateTracks.execute(WIDTH, HEIGHT, 0.2, 0.5, 0.0, 0.0, 0.8, 0.5, 9, 4, 0.1, interpolation="linear")[0]
    images = DrawTracks.execute(given, WIDTH, HEIGHT)[0]
    assert images.shape == (9, HEIGHT, WIDTH, 3) and all(lit(image) for image in images)


def test_one_visibility_for_all_points_is_the_hosts_way_too():
    given = tracks() | {"track_visibility": torch.tensor([[True], [False], [True], [True], [True]])}
    images = DrawTracks.execute(given)[0]
    assert lit(images[0]) and not lit(images[1])


def test_tracks_of_unknown_size_need_one():
    with pytest.raises(ValueError, match="^width: the tracks do not say how large"):
        DrawTracks.execute(tracks(size=False))


def test_half_a_size_is_refused():
    with pytest.raises(ValueError, match="^height: 64×0 is no size"):
        DrawTracks.execute(tracks(), 64, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"track_path": torch.zeros(5, 3)}, "track_path must be"),
        ({"track_visibility": torch.ones(5, 2, dtype=torch.bool)}, r"track_visibility is \[5, 2\]"),
        ({"track_visibility": torch.zeros(5, 3, dtype=torch.bool)}, "none of the 3 points is visible"),
        ({"track_path": torch.zeros(5, 0, 2), "track_visibility": torch.zeros(5, 0)}, "none of the 0 points"),
        ({"track_path": torch.full((5, 3, 2), torch.nan)}, "none of the 3 points is visible"),
        ({"track_path": torch.full((5, 3, 2), 2000.0)}, "no visible point ever lies within 320×180"),
    ],
)
def test_tracks_that_cannot_be_drawn_are_refused(changed, message):
    with pytest.raises(ValueError, match=f"^tracks: .*{message}"):
        DrawTracks.execute(tracks() | changed)


@pytest.mark.parametrize(
    ("shape", "message"), [((4, HEIGHT, WIDTH), "it has 4 frames"), ((5, HEIGHT, HEIGHT), "another shape")]
)
def test_masks_of_another_video_are_refused(shape, message):
    with pytest.raises(ValueError, match=f"^mask: .*{message}"):
        DrawTracks.execute(tracks(), mask=torch.zeros(shape))


def test_the_artist_can_cancel():
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        DrawTracks.execute(tracks())
