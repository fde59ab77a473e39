"""Following the background: against virtual cameras whose path is known exactly, and in the host's own nodes."""

import re

import comfy.model_management
import numpy as np
import pytest
import torch
from animate_anywhere.nodes.tracks import TrackBackground
from animate_anywhere.vision.alignment import project
from animate_anywhere.vision.background_tracks import track_background
from comfy_extras.nodes_wanmove import (
    WanMoveConcatTrack,
    WanMoveVisualizeTracks,
    create_pos_embeddings,
)
from scene import camera, film, step_in, walker, wall

SIZE = (180, 320)
FRAMES = 12
WALL = wall(360, 640)


def clip(kind: str, frames: int = FRAMES):
    """A film of the wall [T, H, W, 3] with somebody walking by, the person's mask, and where the camera truly moves a
    pixel of frame 0: [T, 3, 3], from pixel centres."""
    path = camera(kind, frames, SIZE)
    mask = walker(frames, SIZE)
    return step_in(film(WALL, path, SIZE), mask), mask, np.linalg.inv(path) @ path[0]


def step_errors(tracks, truth) -> np.ndarray:
    """px a frame by which every visible step of every point is off."""
    errors = []
    for t in range(1, len(truth)):
        both = tracks.visible[t] & tracks.visible[t - 1]
        expected = project(truth[t] @ np.linalg.inv(truth[t - 1]), tracks.path[t - 1, both] - 0.5)
        errors.extend(np.linalg.norm(expected - (tracks.path[t, both] - 0.5), axis=1))
    return np.array(errors)


@pytest.fixture(scope="module")
def pan():
    return clip("pan", 24)


@pytest.fixture(scope="module")
def found(pan):
    return track_background(pan[0], pan[1])


@pytest.fixture(scope="module")
def unseeded(pan):
    return track_background(pan[0], pan[1], reseed=False)


@pytest.mark.parametrize("kind", ["still", "pan", "zoom", "roll"])
def test_points_follow_the_background_within_a_tenth_of_a_pixel_a_frame(kind):
    frames, mask, truth = clip(kind)
    found = track_background(frames, mask)
    errors = step_errors(found.tracks, truth)
    assert len(errors) > 8 * FRAMES
    assert np.percentile(errors, 95) < 0.1  # the promise; the rest are points about to leave or to be hidden
    assert errors.max() < 0.3
    assert found.still == (kind == "still")


def test_errors_do_not_add_up(pan, found):
    truth, tracks = pan[2], found.tracks
    off = []
    for n in range(tracks.path.shape[1]):
        times = np.flatnonzero(tracks.visible[:, n])
        home = project(np.linalg.inv(truth[times[0]]), tracks.path[times[:1], n] - 0.5)
        off.append(np.linalg.norm(project(truth[times[-1]], home)[0] + 0.5 - tracks.path[times[-1], n]))
    assert np.median(off) < 0.1  # after up to 24 frames as after one


def test_a_still_camera_stands_exactly_despite_noise():
    frames, mask, _ = clip("still")
    tracks = track_background((frames + 0.02 * torch.randn(frames.shape)).clamp(0, 1), mask).tracks
    assert np.ptp(tracks.path, axis=0).max() == 0


def test_noise_of_five_grey_levels_is_borne(pan):
    frames, mask, truth = pan
    noisy = (frames + 0.02 * torch.randn(frames.shape)).clamp(0, 1)
    errors = step_errors(track_background(noisy, mask).tracks, truth)
    assert np.percentile(errors, 75) < 0.1
    assert errors.max() < 0.3


def test_no_point_is_seen_on_the_person(pan, found):
    mask, tracks = pan[1], found.tracks
    for t, n in np.argwhere(tracks.visible):
        x, y = tracks.path[t, n].astype(int)
        assert not mask[t, y, x]


def test_points_are_spread_and_as_many_as_asked():
    tracks = track_background(film(WALL, camera("still", 4, SIZE), SIZE), points=12).tracks
    assert tracks.visible.sum(axis=1).tolist() == [12] * 4
    first = tracks.path[0]
    apart = np.linalg.norm(first[:, None] - first[None], axis=-1) + 1e3 * np.eye(12)
    assert apart.min() > 0.3 * np.sqrt(SIZE[0] * SIZE[1] / 12) - 1


def test_a_point_is_known_again_after_somebody_walked_by(unseeded):
    gaps = [np.diff(np.flatnonzero(column)).max() for column in unseeded.tracks.visible.T]
    assert max(gaps) > 3


def test_new_points_take_the_place_of_those_that_leave(found, unseeded):
    kept, new = unseeded.tracks.visible, found.tracks.visible
    assert kept[0].all()
    assert not new[0].all()
    assert new[-1].sum() > kept[-1].sum()


def test_between_its_sightings_a_point_goes_with_the_camera(pan, found):
    truth, tracks = pan[2], found.tracks
    late = np.flatnonzero(~tracks.visible[0])
    for n in late:
        born = tracks.visible[:, n].argmax()
        home = project(np.linalg.inv(truth[born]), tracks.path[born, n][None] - 0.5)[0] + 0.5
        assert np.linalg.norm(home - tracks.path[0, n]) < 0.5


def test_the_camera_path_is_that_of_the_camera(pan, found):
    corners = np.array([[0, 0], [320, 0], [0, 180], [320, 180]], float)
    expected = [project(homography, corners - 0.5) + 0.5 for homography in pan[2]]
    assert np.abs(found.camera.carry(corners) - expected).max() < 0.5  # a third of a pixel a direction, in the corners
    assert found.camera.confidence.min() > 0.8


@pytest.mark.parametrize("noise", [0, 0.02])
def test_a_flat_background_has_no_trackable_points(noise):
    frames = (torch.full((6, *SIZE, 3), 0.5) + noise * torch.randn(6, *SIZE, 3)).clamp(0, 1)
    tracks, path, report = TrackBackground.execute(frames).result
    assert tracks["track_path"].shape == (6, 0, 2) and tracks["track_visibility"].shape == (6, 0)
    assert "No trackable points" in report
    assert np.array_equal(path.homographies, np.tile(np.eye(3), (6, 1, 1))) and not path.confidence[1:].any()


def test_no_point_crosses_a_cut():
    frames = torch.cat([film(wall(360, 640, seed), camera("still", 6, SIZE), SIZE) for seed in (0, 1)])
    found = track_background(frames)
    assert found.cuts == (6,)
    assert not (found.tracks.visible[:6].any(axis=0) & found.tracks.visible[6:].any(axis=0)).any()
    assert found.tracks.visible[6:].any() and found.camera.confidence[6] == 0


def test_what_moves_by_itself_before_a_camera_that_stands_is_left_out():
    background = film(WALL, camera("still", FRAMES, SIZE), SIZE)
    drifting = film(wall(360, 640, seed=1), camera("pan", FRAMES, SIZE), SIZE)
    background[:, 40:140, 100:220] = drifting[:, 40:140, 100:220]
    x, y = track_background(background).tracks.path[0].T
    assert not ((x > 112) & (x < 208) & (y > 52) & (y < 128)).any()


def test_changing_light_does_not_lose_the_points():
    frames, mask, truth = clip("pan")
    dimming = torch.linspace(1, 0.6, FRAMES)[:, None, None, None]
    errors = step_errors(track_background(frames * dimming, mask).tracks, truth)
    assert len(errors) > 8 * FRAMES
    assert np.percentile(errors, 95) < 0.2


@pytest.fixture(scope="module")
def places(found):
    """Three places [3, 2] px in frame 0 where there is something to see, for long: beside points that were chosen."""
    seen = np.where(found.tracks.visible[0], found.tracks.visible.sum(axis=0), 0)
    return found.tracks.path[0, np.argsort(-seen, kind="stable")[:3]] + np.array([1.3, -0.7])


def test_placed_points_are_those_that_are_followed(pan, places):
    frames, mask, truth = pan
    found = track_background(frames, mask, reseed=False, placed=places)
    np.testing.assert_allclose(found.tracks.path[0], places, atol=0.2)  # smoothed over time, as all tracks are
    assert found.lost == ()
    assert np.mean(step_errors(found.tracks, truth)) < 0.1
    more = track_background(frames, mask, placed=places)  # others take the place of those that leave
    assert more.tracks.visible[:, :3].sum() == found.tracks.visible.sum()


def test_placed_points_that_cannot_be_followed_are_told(pan, places):
    frames, mask, _ = pan
    height, width = frames.shape[1:3]
    y, x = np.argwhere(mask[0].numpy() > 0.5).mean(axis=0)
    places = [(0.0, 0.5), (x / width, y / height), tuple(places[0] / [width, height])]  # at the edge, on the person
    text = "; ".join(f"{x:.4f}, {y:.4f}" for x, y in places)
    output = TrackBackground.execute(frames, reseed=False, mask=mask, placed_points=text)
    assert output.ui["text"] == (output[2],)
    assert "2 of 3 placed points could not be followed" in output[2] and "0, 0.5; " in output[2]
    assert output[0]["track_path"].shape[1] == 1
    (shown,) = output.ui["aa_points"]
    assert [point[:2] for point in shown["points"]] == [pytest.approx(places[2], abs=1e-3)]
    assert shown["lost"] == [pytest.approx(place, abs=1e-3) for place in places[:2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.2", "^placed_points: '0.2' are no places"),
        ("0.2, 0.3; 0.4", "are no places"),
        ("100, 60", "are no places. Write x, y of each as parts"),
        ("x, y", "are no places"),
        ("; ".join(["0.5, 0.5"] * 51), "51 are too many; place 50 at most"),
    ],
)
def test_places_that_are_none_are_refused(pan, text, message):
    with pytest.raises(ValueError, match=message):
        TrackBackground.execute(pan[0], placed_points=text)


def test_the_hosts_nodes_draw_and_join_the_tracks(pan, found):
    frames, tracks = pan[0], found.tracks.to_host()
    drawn = WanMoveVisualizeTracks.execute(frames, 24, 3, 1.0, 2, tracks)[0]
    assert drawn.shape == frames.shape and (drawn - frames).abs().max() > 0.3
    both = WanMoveConcatTrack.execute(tracks, tracks)[0]
    assert both["track_path"].shape[1] == 2 * tracks["track_path"].shape[1]


def test_the_hosts_nodes_take_empty_tracks():
    frames = torch.full((6, *SIZE, 3), 0.5)
    tracks = TrackBackground.execute(frames)[0]
    assert WanMoveVisualizeTracks.execute(frames, 24, 3, 1.0, 2, tracks)[0].shape == frames.shape
    assert create_pos_embeddings(tracks["track_path"], tracks["track_visibility"], [4, 8, 8], *SIZE, 0).shape == (
        0,
        2,
        2,
    )


def test_without_reseed_every_point_gives_wan_move_its_looks(unseeded):
    """The host takes a point's looks from where it is in the first frame; of one not seen there, from a corner."""
    tracks = unseeded.tracks.to_host()
    number = tracks["track_path"].shape[1]
    places = create_pos_embeddings(tracks["track_path"], tracks["track_visibility"], [4, 8, 8], *SIZE, number)
    assert (places[:, 0] >= 0).all() and (places[:, 1:] >= 0).any()


def test_points_that_wan_move_cannot_use_are_reported(pan):
    frames, mask, _ = pan
    assert "turn reseed off" in TrackBackground.execute(frames, mask=mask)[2]
    assert "turn reseed off" not in TrackBackground.execute(frames, reseed=False, mask=mask)[2]


def test_the_report_tells_the_motion():
    path = camera("still", FRAMES, SIZE)
    path[:, 0, 2] += 2.5 * np.arange(FRAMES)
    output = TrackBackground.execute(film(WALL, path, SIZE))
    assert re.search(r"The background moves 2\.(4|5)\d px a frame; shift -2\.(4|5)\d, ", output[2])
    assert output.ui["text"] == (output[2],)
    assert "The camera stands" in TrackBackground.execute(clip("still")[0], mask=clip("still")[1])[2]


def test_one_frame_is_refused():
    with pytest.raises(ValueError, match="^images: there is only one frame"):
        TrackBackground.execute(torch.rand(1, *SIZE, 3))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, *SIZE), "covers every frame completely"),
        (torch.zeros(4, 90, 160), "its size is 160×90"),
        (torch.zeros(3, *SIZE), "it has 3 frames"),
    ],
)
def test_masks_that_leave_nothing_or_do_not_fit_are_refused(mask, message):
    with pytest.raises(ValueError, match=f"^mask: .*{message}"):
        TrackBackground.execute(torch.rand(4, *SIZE, 3), mask=mask)


@pytest.mark.parametrize("points", [4, 51])
def test_the_number_of_points_is_that_of_the_paper(points):
    with pytest.raises(ValueError, match=f"^points: {points} .* from 5 to 50"):
        TrackBackground.execute(torch.rand(4, *SIZE, 3), points=points)


def test_the_artist_can_cancel():
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        TrackBackground.execute(clip("still")[0])
