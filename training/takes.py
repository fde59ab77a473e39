"""A video as takes: stretches without a cut, through which one person is followed; and the clips in a take."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import torch

from ..vision import mask as masks
from ..vision import plate
from ..vision import pose as poses
from ..vision.detectors import BlazePose
from ..vision.geometry import Cameras
from .camera_files import fitted
from .dataset import Character, Clip
from .videos import Fit, Frame, Reader

LONGEST = 200  # frames: what is in memory at once
# A cut: the picture changes by so much of 255 on average, and so many times as much as around it. Fast motion changes
# much, too, but goes on for several frames.
CUT, CUT_AGAINST_USUAL, AROUND = 15, 3, 2
THUMBNAIL = (32, 18)  # px
SHORT_SIDE = 320  # px at which people are followed where a video has them: clips may be too small to find anybody
SMOOTHING = 0.3  # the default of Extract Pose
LAPSE = 2  # frames, as Segment Character closes them
SEEN = 0.9  # share of a clip's frames in which the person is to be
FULL = 0.6  # of the first frame: of what is behind a larger person nearly all would be invented
GROWN = 0.03  # of the shorter side: motion blur, hair and contact shadow around a soft mask
CHARACTERS = 6  # pictures of the person, spread over a take
MARGIN = 6  # px around them
# A hand reaches as far beyond the wrist as 0.75 of a forearm: the disc around it, in forearms.
HAND_CENTRE, HAND_RADIUS = 0.37, 0.42
SHORTENED = 0.6  # a forearm that points at the camera is taken to be this share of the longest one seen


@dataclass(frozen=True, eq=False)
class Take:
    """T frames of a video, not cropped, with the person who is followed through them."""

    frames: np.ndarray  # uint8 [T, h, w, 3]
    indices: np.ndarray  # [T] of these frames in the file
    pose: poses.PoseTrack
    person: np.ndarray  # uint8 [T, h, w], 255 on the person
    seen: np.ndarray  # [T] bool


def takes(reader: Reader, fit: Fit, length: int, network: BlazePose, dropped: Counter) -> Iterator[Take]:
    """The takes of a video that have ``length`` frames or more and somebody in them; ``dropped`` counts the others."""
    larger = max(1.0, min(SHORT_SIDE / min(fit.width, fit.height), reader.width / fit.width))
    size = round(fit.width * larger), round(fit.height * larger)
    for frames in shots(reader.frames(*size), length):
        if len(frames) < length:
            dropped["too short between two cuts, or at the end"] += 1
            continue
        indices = np.array([frame.index for frame in frames])
        pictures = np.stack([frame.picture for frame in frames])
        frames.clear()  # they are in memory once more
        followed = network.follow(torch.from_numpy(pictures))
        if not followed.seen.any():
            dropped["nobody is seen"] += 1
            continue
        track = poses.smooth(poses.fill_gaps(followed.pose)[0], SMOOTHING)
        person = followed.mask.numpy()
        masks.close_lapses(person, LAPSE)
        yield Take(pictures, indices, track, np.rint(person * 255).astype(np.uint8), followed.seen.numpy())


def shots(frames: Iterator[Frame], length: int) -> Iterator[list[Frame]]:
    """The frames between cuts, at most LONGEST (in whole clips of ``length``) at a time."""
    longest = max(1, LONGEST // length) * length
    waiting: list[Frame] = []
    for frame in frames:
        waiting.append(frame)
        if len(waiting) == longest + AROUND:  # enough to judge a cut at the last frame that counts
            end = next((at for at in cuts(waiting) if at <= longest), longest)
            shot, waiting = waiting[:end], waiting[end:]
            yield shot
    for first, end in pairwise([0, *cuts(waiting), len(waiting)]):
        yield from (waiting[at : min(at + longest, end)] for at in range(first, end, longest))


def cuts(frames: list[Frame]) -> list[int]:
    """Frames that follow on a cut."""
    small = [cv2.resize(frame.picture, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32) for frame in frames]
    change = np.array([0, *(np.abs(after - before).mean() for before, after in pairwise(small))])
    found = []
    for at in np.flatnonzero(change > CUT):
        around = np.r_[change[max(1, at - AROUND) : at], change[at + 1 : at + 1 + AROUND]]
        if change[at] > CUT_AGAINST_USUAL * (around.mean() if len(around) else 0):
            found.append(int(at))
    return found


def clips(
    take: Take, fit: Fit, length: int, cameras: Cameras | None, reader: Reader, dropped: Counter
) -> Iterator[tuple[int, Clip]]:
    """The clips of a take, one after the other, and the frame of the take at which each begins.

    cameras: of all frames of the file; ``dropped`` counts the reasons why clips were left out.
    """
    if cameras is not None:
        cameras = fitted(cameras[take.indices], fit, reader.width, reader.height)
    for first in range(0, len(take.frames) - length + 1, length):
        span = slice(first, first + length)
        person = fitted_pictures(take.person[span], fit) > 255 * masks.INSIDE
        pose = cropped(take.pose, span, fit)
        there = take.seen[span] & person.any((1, 2)) & pose.present
        if there.mean() < SEEN:
            dropped["the person is not in it for long enough"] += 1
        elif person[0].mean() > FULL:
            dropped["the person fills the picture"] += 1
        else:
            frames = fitted_pictures(take.frames[span], fit)
            own = None if cameras is None else cameras[span]
            yield first, Clip(frames, cleaned(frames, person), pose, person, hands(pose, person), own)


def fitted_pictures(pictures: np.ndarray, fit: Fit) -> np.ndarray:
    """``pictures`` [T, h, w] or [T, h, w, 3] of a take, scaled and cropped."""
    if pictures.shape[1:3] != (fit.height, fit.width):
        size = (fit.width, fit.height)
        pictures = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])
    left, top, width, height = fit.crop
    return np.ascontiguousarray(pictures[:, top : top + height, left : left + width])


def cropped(track: poses.PoseTrack, span: slice, fit: Fit) -> poses.PoseTrack:
    """The pose inside the crop; joints outside of it are not seen, as BlazePose's outside of a frame."""
    left, top, width, height = fit.crop
    points = track.resized(fit.width, fit.height).keypoints[span] - [left, top, 0]
    inside = ((points[..., :2] >= 0) & (points[..., :2] < [width, height])).all(-1)
    return replace(track, keypoints=np.where(inside[..., None], points, 0), width=width, height=height)


def cleaned(frames: np.ndarray, person: np.ndarray) -> np.ndarray:
    """``frames`` [T, H, W, 3] without the ``person`` [T, H, W], both uint8 again."""
    grow = max(2, round(GROWN * min(person.shape[1:])))
    mask = torch.from_numpy(person).float()
    clean = plate.clean_background(torch.from_numpy(frames).float() / 255, mask, grow=grow).frames
    return (clean.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def hands(track: poses.PoseTrack, person: np.ndarray) -> np.ndarray:
    """Where the hands of the ``person`` [T, H, W] are: bool [T, H, W].

    BlazePose gives wrists: a hand is the part of the person within a disc beyond the wrist, along the forearm.
    """
    found = np.zeros(person.shape, np.uint8)
    for elbow, wrist in ((3, 4), (6, 7)):
        for points in np.moveaxis(track.keypoints, 1, 0):  # each person's [T, 18, 3]
            known = (points[:, [elbow, wrist], 2] >= poses.SEEN).all(1)
            arm = points[:, wrist, :2] - points[:, elbow, :2]
            length = np.linalg.norm(arm, axis=1)
            usual = SHORTENED * length[known].max(initial=0)
            for at in np.flatnonzero(known):
                centre = points[at, wrist, :2] + HAND_CENTRE * arm[at]
                radius = HAND_RADIUS * max(length[at], usual)
                cv2.circle(found[at], centre.round().astype(int).tolist(), max(1, round(radius)), 1, thickness=-1)
    return found.astype(bool) & person


def characters(take: Take, fit: Fit) -> Iterator[tuple[int, Character]]:
    """Pictures of the person, and the frame of the take that each is from: of each part of the take the one in which
    most joints and most of the person are seen."""
    joints = take.pose.seen.sum((1, 2)) * take.seen  # [T]
    area = np.count_nonzero(take.person > 255 * masks.INSIDE, axis=(1, 2))
    for part in np.array_split(np.arange(len(take.frames)), CHARACTERS):
        usable = part[(joints[part] > 0) & (area[part] > 0)]
        if len(usable):
            best = int(usable[np.lexsort((area[usable], joints[usable]))[-1]])
            yield best, cut_out(take.frames[best], take.person[best], fit)


def cut_out(picture: np.ndarray, person: np.ndarray, fit: Fit) -> Character:
    """The person out of one frame, no larger than a clip."""
    box = masks.bounding_box(person > 255 * masks.INSIDE, MARGIN)
    picture, opacity = picture[box], person[box]
    scale = min(1.0, fit.crop[2] / picture.shape[1], fit.crop[3] / picture.shape[0])
    if scale < 1:
        size = tuple(max(1, int(side * scale)) for side in picture.shape[1::-1])
        picture, opacity = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (picture, opacity))
    return Character(np.ascontiguousarray(picture), np.ascontiguousarray(opacity))
