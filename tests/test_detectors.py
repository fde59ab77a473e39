"""BlazePose on a real dancer: against the original in a TFLite runtime, and what following adds to it."""

import convert_blazepose
import cv2
import numpy as np
import pack
import pytest
import torch
from animate_anywhere.vision import detectors, landmarks, search
from animate_anywhere.vision.pose import PoseTrack, smooth
from animate_anywhere.vision.region import Region
from animate_anywhere.vision.tracking import Identities

WEIGHTS = pack.ROOT / "weights" / "blazepose"


@pytest.fixture(scope="module")
def network():
    return detectors.load_blazepose(WEIGHTS)


@pytest.fixture(scope="module")
def followed(network, dance):
    return network.follow(dance)


@pytest.fixture
def searches(network, monkeypatch):
    """The frames that the detector was asked about, while the test runs."""
    asked, whole = [], network.search.whole
    monkeypatch.setattr(network.search, "whole", lambda frame: asked.append(frame) or whole(frame))
    return asked


def overlap(one, other):
    one, other = one > 0.5, other > 0.5
    return float((one & other).sum() / (one | other).sum())


def run_original(name, pictures):
    """Outputs of the original network for each of ``pictures`` [n, n, 3]."""
    runtime = convert_blazepose.interpreter(convert_blazepose.read_model(convert_blazepose.fetch_wheel(), name))
    return [convert_blazepose.run_original(runtime, picture[None]) for picture in pictures]


def test_landmarks_and_mask_equal_the_original_on_the_same_crops(network, dance):
    frames = [frame.numpy() for frame in dance[::6]]
    # Tracking would amplify the last digits.
    crops = [network.search.whole(frame)[0].region.cut(frame, 256) for frame in frames]
    with torch.inference_mode():
        ours = [network.landmarks(torch.from_numpy(crop)[None].permute(0, 3, 1, 2)) for crop in crops]
    for (marks, presence, heatmaps, mask), original in zip(ours, run_original("landmarks", crops)):
        points = torch.from_numpy(original[0].reshape(39, 5))
        # 1 px is promised; both compute in float32 with the same weights, so a hundredth is left for rounding.
        assert (marks[0, :, :2] - points[:, :2]).abs().max() < 0.01
        assert (marks[0, :, 3:].sigmoid() - points[:, 3:].sigmoid()).abs().max() < 1e-3
        assert abs(float(presence) - original[1].item()) < 1e-3
        assert (mask[0, 0].sigmoid() - torch.from_numpy(original[2][0, ..., 0]).sigmoid()).abs().max() < 1e-2
        assert (heatmaps[0].sigmoid() - torch.from_numpy(original[3][0]).permute(2, 0, 1).sigmoid()).abs().max() < 1e-2


def test_detector_equals_the_original(network, dance):
    pictures = [search.letterbox(frame.numpy(), 224) * 2 - 1 for frame in dance[::15]]
    for picture, (boxes, scores) in zip(pictures, run_original("detector", pictures)):
        with torch.inference_mode():
            our_scores, our_boxes = network.search.network(torch.from_numpy(picture)[None].permute(0, 3, 1, 2))
        assert (our_scores - torch.from_numpy(scores[..., 0])).abs().max() < 1e-2
        assert (our_boxes - torch.from_numpy(boxes)).abs().max() < 1e-2


def test_the_dancer_is_seen_in_every_frame(followed):
    assert followed.seen.sum() == 45
    assert followed.pose.keypoints.shape == (45, 1, 18, 3)
    assert (followed.pose.width, followed.pose.height) == (350, 350)
    # Shoulders, hips, knees and ankles are in view throughout (a wrist is hidden now and then).
    assert followed.pose.seen[:, 0, [1, 2, 5, 8, 9, 10, 11, 12, 13]].all()


def test_frames_of_bytes_are_the_same_frames(network, dance, followed):
    again = network.follow((dance[:3] * 255).round().to(torch.uint8))
    assert np.array_equal(again.pose.keypoints, followed.pose.keypoints[:3])  # the clip was stored in bytes


def test_the_mask_holds_the_body_and_little_else(followed):
    assert followed.mask.shape == (45, 350, 350)
    assert followed.mask.min() >= 0 and followed.mask.max() <= 1
    points = followed.pose.keypoints[:, 0, [1, 2, 5, 8, 9, 11, 12], :2].astype(int)  # well inside the outline
    inside = followed.mask.numpy()[np.arange(45)[:, None], points[..., 1], points[..., 0]]
    assert (inside > 0.5).mean() > 0.97
    # A standing body fills a good third of the box around its joints, and that box is a third of this picture.
    share = (followed.mask > 0.5).float().mean(dim=(1, 2))
    assert share.min() > 0.08 and share.max() < 0.25


def test_the_detector_runs_once_while_the_person_stays(network, dance, searches):
    network.follow(dance[:6])
    assert len(searches) == 1


def test_a_person_who_was_gone_is_found_again(network, dance, searches):
    clip = dance[:9].clone()
    clip[3:6] = 0
    followed = network.follow(clip)
    assert followed.seen.tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert not followed.mask[3:6].any() and not followed.pose.keypoints[3:6].any()
    assert len(searches) == 1 + 4  # at the start, and from the loss until the return


def test_a_person_who_is_hard_to_find_at_first_is_followed_back(network, dance, monkeypatch):
    calls, whole = [], network.search.whole
    monkeypatch.setattr(
        network.search, "whole", lambda frame: whole(frame) if len(calls) > 2 else calls.append(frame) or []
    )
    monkeypatch.setattr(network.search, "in_tiles", lambda *_: [])
    followed = network.follow(dance[:6])
    assert len(calls) == 3
    assert followed.seen.all() and (followed.mask.amax(dim=(1, 2)) > 0.9).all()


@pytest.mark.parametrize(("left", "top"), [(-50, 10), (10, -50), (130, 10), (10, 100)])
def test_a_place_beyond_the_picture_is_not_searched(network, monkeypatch, left, top):
    """Somebody who has walked out of it is expected there."""
    monkeypatch.setattr(network.search, "_detect", lambda crop: pytest.fail(f"{crop.shape} was searched"))
    assert network.search.inside(np.zeros((90, 120, 3), np.float32), left, top, 40) == []


def test_nobody_is_seen_where_nobody_is(network):
    followed = network.follow(torch.rand(3, 90, 160, 3))
    assert not followed.seen.any() and not followed.mask.any()


def test_a_single_picture_is_enough(network, dance, followed):
    alone = network.follow(dance[:1])
    assert alone.seen.all()
    assert np.allclose(alone.pose.keypoints, followed.pose.keypoints[:1])


def test_joints_turn_with_the_picture(network, dance, followed):
    """The region turns with the body: a dancer on her side has the same joints, on their side."""
    turned = network.follow(torch.rot90(dance[:1], 1, (1, 2))).pose.keypoints[0, 0]  # counterclockwise
    upright = followed.pose.keypoints[0, 0]
    both = (turned[:, 2] > 0) & (upright[:, 2] > 0)
    assert both.sum() >= 14
    back = np.column_stack([350 - turned[:, 1], turned[:, 0]])
    # Hers are 260 px from head to toe; 3 % of that is what one and the same pose varies between two crops.
    assert np.abs(back - upright[:, :2])[both].mean() < 8


def test_segment_needs_only_the_pose(network, dance, followed):
    few = slice(0, 45, 15)
    pose = PoseTrack(followed.pose.keypoints[few], 350, 350).resized(700, 175)  # of another canvas, too
    mask = network.segment(dance[few], pose)
    # The region is an estimate from 18 joints, so the outline may differ by a pixel or so of a body 60 px wide.
    assert overlap(mask, followed.mask[few]) > 0.93


def test_segment_cuts_out_everybody_in_the_pose(network, dance, followed):
    pair = torch.cat([dance[:1], dance[40:41]], dim=2)  # two of her, side by side
    joints = followed.pose.keypoints[[0, 40], 0] + [[[0, 0, 0]], [[350, 0, 0]]]
    mask = network.segment(pair, PoseTrack(joints[None], 700, 350))
    assert overlap(mask[0, :, :350], followed.mask[0]) > 0.9
    assert overlap(mask[0, :, 350:], followed.mask[40]) > 0.9


def test_segment_is_empty_where_the_pose_is(network, dance):
    assert not network.segment(dance[:2], PoseTrack(np.zeros((2, 1, 18, 3)), 350, 350)).any()


@pytest.mark.parametrize("work", ["follow", "segment"])
def test_progress_counts_the_frames_and_may_stop_the_work(network, dance, followed, work):
    arguments = [dance[:4]] + ([PoseTrack(followed.pose.keypoints[:4], 350, 350)] if work == "segment" else [])
    counted = []
    getattr(network, work)(*arguments, counted.append)
    assert counted == [1, 2, 3, 4]

    class Cancelled(Exception):
        pass

    def cancel(done):
        if done == 2:
            raise Cancelled

    threads = torch.get_num_threads()
    with pytest.raises(Cancelled):
        getattr(network, work)(*arguments, cancel)
    assert torch.get_num_threads() == threads


def test_following_leaves_the_number_of_threads_as_it_was(network, dance):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        network.follow(dance[:1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_loading_leaves_the_random_state_as_it_was():
    before = torch.get_rng_state()
    detectors.load_blazepose(WEIGHTS)
    assert torch.equal(torch.get_rng_state(), before)


def landmarks_in_a_row():
    """35 landmarks, number i at (10 i, 10 i), all visible."""
    places = np.arange(35.0) * 10
    return np.column_stack([places, places, np.ones(35)])


def test_openpose_joints_take_their_landmarks_and_the_neck_lies_between_the_shoulders():
    joints = landmarks.openpose_joints(landmarks_in_a_row(), 400, 400)
    assert (joints[:, 2] == 1).all()
    neck = [115, 115, 1]
    assert joints[1].tolist() == neck
    # BlazePose: 0 nose, 2 and 5 left and right eye, 7 and 8 ears, 11 to 16 arms, 23 to 28 legs, left before right.
    order = [0, None, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7]
    assert [x / 10 for x in np.delete(joints[:, 0], 1)] == [number for number in order if number is not None]


def test_hidden_joints_and_joints_outside_the_frame_are_not_seen():
    marks = landmarks_in_a_row()
    marks[12, 2] = 0.49  # the right shoulder, and with it the neck
    marks[15, 0] = -1  # the left wrist, off to the left
    marks[14, 0] = 400  # the right elbow, off to the right
    marks[5, 1] = -1  # the right eye, above
    joints = landmarks.openpose_joints(marks, 400, 270)  # landmarks 27 and 28, the ankles, lie below
    assert np.flatnonzero(joints[:, 2] == 0).tolist() == [1, 2, 3, 7, 10, 13, 14]
    assert not joints[joints[:, 2] == 0].any()


def refined_as_in_mediapipe(points, heatmaps):
    """RefineLandmarksFromHeatmapCalculator, pixel by pixel."""
    points = points.copy()
    for number, (x, y) in enumerate(points):
        column, row = int(x / 256 * 64), int(y / 256 * 64)
        if not (0 <= column < 64 and 0 <= row < 64):
            continue
        total = across = down = highest = 0.0
        for r in range(max(0, row - 3), min(64, row + 4)):
            for c in range(max(0, column - 3), min(64, column + 4)):
                confidence = 1 / (1 + np.exp(-heatmaps[number, r, c]))
                total, highest = total + confidence, max(highest, confidence)
                across, down = across + c * confidence, down + r * confidence
        if highest >= 0.5 and total > 0:
            points[number] = across / 64 / total * 256, down / 64 / total * 256
    return points


def test_refining_equals_mediapipes_loop():
    random = np.random.default_rng(0)
    points = random.uniform(2, 254, (35, 2))
    points[0] = 300, 20  # outside
    heatmaps = random.normal(-6, 3, (35, 64, 64))
    heatmaps[1] = -9  # faint everywhere
    refined = landmarks.refine(points, heatmaps)
    assert np.allclose(refined, refined_as_in_mediapipe(points, heatmaps), atol=1e-9)
    assert (refined[:2] == points[:2]).all() and not np.allclose(refined[2:], points[2:])


def test_a_region_stands_along_the_body():
    """The circle's top comes out at the middle of the crop's upper part, whichever way the body lies."""
    for angle in np.linspace(0, 2 * np.pi, 9):
        center = np.array([60.0, 50.0])
        top = center + 20 * np.array([np.sin(angle), -np.cos(angle)])
        region = Region.around(center, top)
        assert region.size == pytest.approx(2 * 20 * 1.25)
        matrix = region.to_frame(100)
        assert np.allclose(matrix @ [50, 50, 1], center)
        assert np.allclose(matrix @ [50, 10, 1], top)  # 1 / 1.25 of the way from the middle to the edge


def test_what_is_cut_out_goes_back_to_its_place():
    yy, xx = np.mgrid[:120, :160]
    blob = np.exp(-((xx - 70) ** 2 + (yy - 50) ** 2) / 400).astype(np.float32)
    region = Region(75, 52, 90, angle=0.4)
    patch = region.cut(np.repeat(blob[..., None], 3, axis=2), 256)[..., 0]
    back = np.zeros_like(blob)
    region.paste(patch, back)
    inside = (xx - 75) ** 2 + (yy - 52) ** 2 < 43**2
    assert np.abs(back - blob)[inside].max() < 0.02  # two bilinear samplings of a smooth blob
    assert not back[(xx - 75) ** 2 + (yy - 52) ** 2 > 65**2].any()


def test_pasting_beyond_the_frame_keeps_what_was_there():
    mask = np.full((20, 20), 0.5, np.float32)
    Region(-50, 10, 30).paste(np.ones((8, 8), np.float32), mask)
    Region(10, 10, 8).paste(np.zeros((8, 8), np.float32), mask)
    assert (mask == 0.5).all()


def backdrop(height, width):
    """A smooth grey picture in which nobody is."""
    noise = np.random.default_rng(0).random((height, width, 3), np.float32)
    return torch.from_numpy(cv2.GaussianBlur(noise, (0, 0), 9))


@pytest.mark.parametrize("height", [45, 90])
def test_small_people_are_found_in_tiles(network, dance, height):
    """Of 720 px the detector itself finds nobody below 190."""
    side = round(height * 350 / 260)
    picture = backdrop(720, 1280)
    small = cv2.resize(dance[0].numpy(), (side, side), interpolation=cv2.INTER_AREA)
    picture[400 : 400 + side, 900 : 900 + side] = torch.from_numpy(small)
    assert not network.search.whole(picture.numpy())
    followed = network.follow(picture[None])
    joints = followed.pose.keypoints[0, 0]
    inside = (joints[:, 0] > 900) & (joints[:, 0] < 900 + side) & (joints[:, 1] > 400) & (joints[:, 1] < 400 + side)
    assert inside[joints[:, 2] > 0].all() and inside.sum() >= 13


def test_a_still_body_trembles_by_less_than_three_thousandths_of_its_height(network, dance):
    """A picture with the grain of a camera, a frame after the other, through detector and default smoothing."""
    grain = torch.randn(12, *dance.shape[1:], generator=torch.Generator().manual_seed(0))
    pose = network.follow((dance[:1] + 0.02 * grain).clamp(0, 1)).pose
    points = smooth(pose, 0.3).keypoints[:, 0, pose.seen[:, 0].all(axis=0), :2]
    away = points - points.mean(axis=0)
    assert np.sqrt((away**2).sum(axis=-1).mean()) < 0.003 * np.ptp(points[0, :, 1])


def crossing(dance, followed, frames, step):
    """Two of her, the second one mirrored and in another jacket, who cross: [T, 350, 700, 3] and, [T, 2] px, where
    their shoulders and hips are."""
    clip, places = backdrop(350, 700).repeat(len(frames), 1, 1, 1), []
    torso = followed.pose.keypoints[frames][:, 0][:, [2, 5, 8, 11], 0].mean(axis=1)
    for index, frame in enumerate(frames):
        left = step * index, 350 - step * index
        jacket = torch.where(torch.arange(350)[:, None, None] > 90, torch.tensor([0.4, 0.8, 1.3]), torch.ones(3))
        for x, flip, tint in ((left[0], False, torch.ones(3)), (left[1], True, jacket)):
            person, alpha = (dance[frame] * tint).clamp(0, 1), followed.mask[frame, ..., None]
            if flip:
                person, alpha = person.flip(1), alpha.flip(1)
            place = clip[index, :, x : x + 350]
            place.copy_(alpha * person + (1 - alpha) * place)
        places.append((left[0] + torso[index], left[1] + 350 - torso[index]))
    return clip, np.array(places)


def test_two_people_who_cross_keep_their_places_in_the_pose(network, dance, followed):
    frames = np.arange(10, 34)
    clip, places = crossing(dance, followed, frames, step=15)
    pose = network.follow(clip, identities=Identities(2, "leftmost")).pose
    torsos = pose.keypoints[:, :, [2, 5, 8, 11]]
    for person, there in enumerate((places[:, 0], places[:, 1])):
        seen = (torsos[:, person, :, 2] > 0).all(axis=1)
        apart = seen & (np.abs(places[:, 0] - places[:, 1]) > 60)  # nearer than that one hides the other
        assert apart[:8].all() and apart[-6:].all()
        assert (np.abs(torsos[apart, person, :, 0].mean(axis=1) - there[apart]) < 25).all()
