"""DWPose (Yang et al. 2023, "Effective Whole-body Pose Estimation with Two-stages Distillation"): 133 points a person.

YOLOX finds the people in each frame, RTMPose places the points of each in a crop; the steps before and after the two
networks are those of rtmlib, number for number. Between frames there is only who is who (`vision.tracking`), and where
to look for people too small to be seen in the whole frame (`Lookout`).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor

from .frames import Progress, picture
from .network_file import Network
from .pose import SEEN, PoseTrack
from .search import tilings
from .tracking import Identities, Sighting, distinct, torso_colours

YOLOX_SIZE = (640, 640)  # height, width
DWPOSE_SIZE = (384, 288)
GREY = 114  # around the picture, as YOLOX was trained
STRIDES = (8, 16, 32)
PERSON = 0  # among COCO's classes
SCORE, OVERLAP = 0.3, 0.45
MARGIN = 1.25  # of the crop around a person's box
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
SIMCC_SPLIT = 2.0  # bins a pixel
AT_ONCE = 5  # frames: what the TorchScript file takes in one batch, if there is one person in each
SPARE = 2  # people whose pose is looked at beyond twice as many as are wanted
TILES_EVERY = 24  # frames: a whole round of tiles takes as long as a second of the rest
SMALLEST_TILE = 256  # px; YOLOX sees people a twelfth as tall as its picture
AROUND = 4  # heights of somebody small: the side of the square in which he is looked for again
CUT = 0.02  # of a square's side: who comes so near to its edge may go on beyond it

# COCO-WholeBody's 133 points: 17 of the body, 6 of the feet, 68 of the face, 21 of each hand, the left one first.
FEET, FACE, LEFT_HAND, RIGHT_HAND = slice(17, 23), slice(23, 91), slice(91, 112), slice(112, 133)
SHOULDERS = [5, 6]
# OpenPose's 18 joints among them, without the neck (1), which is between the shoulders.
OPENPOSE = [0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
NECK = 1
PUPILS = [14, 15]  # joints that are the last two of OpenPose's 70 points of a face


class Whole(NamedTuple):
    """The points of one person beside the joints, as in a PoseTrack."""

    hands: np.ndarray  # [2, 21, 3]
    face: np.ndarray  # [70, 3]
    feet: np.ndarray  # [6, 3]


class Letterbox(NamedTuple):
    """A picture [H, W, 3] uint8 as YOLOX takes it, and by how much it was scaled."""

    picture: np.ndarray
    ratio: float


class Found(NamedTuple):
    """A person that YOLOX found: ``box`` [4] px (left, top, right, bottom), and how sure it is in 0…1."""

    box: np.ndarray
    score: float


class DWPose:
    """Body, hands, face and feet of the people in a video."""

    def __init__(
        self,
        people: Network,
        points: Network,
        people_size: tuple[int, int] = YOLOX_SIZE,
        points_size: tuple[int, int] = DWPOSE_SIZE,
    ) -> None:
        self.people, self.points = people, points
        self.people_size, self.points_size = people_size, points_size

    def follow(
        self, frames: Tensor, progress: Progress | None = None, identities: Identities | None = None
    ) -> PoseTrack:
        """The people in ``frames`` [T, H, W, 3] in 0…1, as many as ``identities`` (new) are to be; the lead is
        first. ``progress`` is called with the number of frames done, and may raise to stop.
        """
        count, height, width = frames.shape[:3]
        identities = identities or Identities(1)
        shapes = {"keypoints": (18, 3), "hands": (2, 21, 3), "face": (70, 3), "feet": (6, 3)}
        arrays = {field: np.zeros((count, identities.most, *shape)) for field, shape in shapes.items()}
        for index, sightings in self._sightings(frames, identities.most, progress):
            for number, sighting in identities.meet(index, distinct(sightings)):
                arrays["keypoints"][index, number] = sighting.joints
                for field, points in sighting.source._asdict().items():
                    arrays[field][index, number] = points
            if progress:
                progress(index + 1)
        order = identities.order(arrays["keypoints"][..., 2].any(axis=2)) or [0]
        return PoseTrack(width=width, height=height, **{field: array[:, order] for field, array in arrays.items()})

    def _sightings(
        self, frames: Tensor, wanted: int, progress: Progress | None = None
    ) -> Iterator[tuple[int, list[Sighting]]]:
        """Frame by frame everybody, where ``wanted`` people are looked for. A few frames go through the second network
        at once."""
        lookout = Lookout(self.find, wanted, progress)
        for start in range(0, len(frames), AT_ONCE):
            pictures = [picture(frame) for frame in frames[start : start + AT_ONCE]]
            found = [lookout.people(start + index, to_bytes(frame)) for index, frame in enumerate(pictures)]
            boxes = [(frame, box) for frame, people in zip(pictures, found) for box, _ in people]
            points = iter(self._points(boxes))
            for index, (frame, people) in enumerate(zip(pictures, found)):
                sighted = [_sighting(frame, next(points), score) for _, score in people]
                yield start + index, [sighting for sighting in sighted if sighting]

    def find(self, frame: np.ndarray) -> list[Found]:
        """People in ``frame`` [H, W, 3], bytes in the order blue, green, red; the surest first."""
        letter = letterbox(frame, self.people_size)
        (output,) = self.people(np.ascontiguousarray(letter.picture.transpose(2, 0, 1)[None], np.float32))
        boxes, scores = decode_boxes(output[0], letter.ratio, self.people_size)
        return [Found(boxes[index], float(scores[index])) for index in suppress(boxes, scores)]

    def _points(self, boxes: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Points [133, 3] (x, y, score) of each (frame [H, W, 3], box)."""
        if not boxes:
            return []
        crops, centers, scales = zip(*(crop(to_bytes(frame), box, self.points_size) for frame, box in boxes))
        across, down = self.points(np.stack(crops))[:2]
        size = np.array(self.points_size[::-1])
        return [decode_points(x, y, size, center, scale) for x, y, center, scale in zip(across, down, centers, scales)]


class Lookout:
    """One run of ``find`` through the frames of a video. Where it sees fewer people than are ``wanted`` in the whole of
    a frame, parts of the frame are searched: around those who were found before, and all tiles now and then. Before
    each tile ``progress`` is called, and may raise to stop."""

    def __init__(
        self, find: Callable[[np.ndarray], list[Found]], wanted: int, progress: Progress | None = None
    ) -> None:
        self.find, self.wanted, self.progress = find, wanted, progress
        self.most = 2 * wanted + SPARE
        self.known: list[tuple[Found, int]] = []  # people, and the frame in which each was found last
        self.next_tiles = 0

    def people(self, index: int, frame: np.ndarray) -> list[Found]:
        """Those in ``frame`` [H, W, 3] bytes, once each, the surest first, at most ``most``."""
        people = self.find(frame)
        lost = [(one, last) for one, last in self.known if index - last <= TILES_EVERY and not _is_among(one, people)]
        if len(people) < self.wanted:
            near = [self._around(frame, one.box) for one, _ in lost[: self.most]]
            people = once(sum(near, people))
            lost = [pair for pair, again in zip(lost, near) if not again]
        if len(people) < self.wanted and index >= self.next_tiles:
            self.next_tiles = index + TILES_EVERY
            people = self._in_tiles(index, frame, people)
        people = people[: self.most]
        self.known = [(one, index) for one in people] + lost
        return people

    def _in_tiles(self, index: int, frame: np.ndarray, people: list[Found]) -> list[Found]:
        """``people``, and small ones: tiles are made smaller until there are as many as are wanted."""
        for squares in tilings(*frame.shape[:2], SMALLEST_TILE):
            seen = []
            for square in squares:
                if self.progress:
                    self.progress(index)
                seen += self._inside(frame, *square)
            people = once(people + seen)
            if len(people) >= self.wanted:
                break
        return people

    def _around(self, frame: np.ndarray, box: np.ndarray) -> list[Found]:
        """People near ``box``, where somebody of its size was; nobody where the whole frame shows as much."""
        side = max(SMALLEST_TILE, round(AROUND * (box[2:] - box[:2]).max()))
        if 2 * side > max(frame.shape[:2]):
            return []
        left, top = ((box[:2] + box[2:] - side) / 2).round().astype(int)
        return self._inside(frame, left, top, side)

    def _inside(self, frame: np.ndarray, left: int, top: int, side: int) -> list[Found]:
        """People who are whole in the square of ``side`` px at (``left``, ``top``) of ``frame``. Who is cut by its edge
        is whole in another tile: tiles overlap by half, and those too large for that half are seen in larger tiles."""
        size = np.array(frame.shape[1::-1])  # width, height
        low, high = np.maximum((left, top), 0), np.minimum((left + side, top + side), size)
        if (low >= high).any():
            return []
        found = self.find(frame[low[1] : high[1], low[0] : high[0]])
        people = [Found(box + np.tile(low, 2), score) for box, score in found]
        # Who goes on beyond the frame's own edge is whole nowhere.
        least = np.where(low > 0, low + CUT * side, -np.inf)
        most = np.where(high < size, high - CUT * side, np.inf)
        return [one for one in people if (one.box[:2] > least).all() and (one.box[2:] < most).all()]


def once(people: list[Found]) -> list[Found]:
    """``people`` without those whom a surer one repeats, the surest first."""
    if not people:
        return []
    boxes, scores = map(np.array, zip(*people))
    return [people[index] for index in suppress(boxes, scores)]


def _is_among(one: Found, people: list[Found]) -> bool:
    """Whether one of ``people`` is in the same place."""
    return any(shares(one.box, found.box[None])[0] > OVERLAP for found in people)


def to_bytes(frame: np.ndarray) -> np.ndarray:
    """[H, W, 3] in 0…1, red first -> bytes, blue first, as both networks were trained."""
    return np.ascontiguousarray((frame[..., ::-1] * 255).round().clip(0, 255).astype(np.uint8))


def letterbox(frame: np.ndarray, size: tuple[int, int]) -> Letterbox:
    """``frame`` [H, W, 3] bytes scaled into the upper left corner of ``size`` (height, width), the rest grey."""
    height, width = frame.shape[:2]
    if (height, width) == tuple(size):
        return Letterbox(frame, 1.0)
    ratio = min(size[0] / height, size[1] / width)
    inside = max(1, int(height * ratio)), max(1, int(width * ratio))
    padded = np.full((*size, 3), GREY, np.uint8)
    padded[: inside[0], : inside[1]] = cv2.resize(frame, inside[::-1], interpolation=cv2.INTER_LINEAR)
    return Letterbox(padded, ratio)


def decode_boxes(output: np.ndarray, ratio: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """YOLOX's output [N, 5 + classes] (x, y, w, h, objectness, classes, by cells of three strides) -> boxes [N, 4]
    (left, top, right, bottom) in pixels of the frame, and their scores [N] as people."""
    if output.ndim != 2 or output.shape[-1] < 6:
        raise ValueError(
            f"detector: the person detector gives numbers of shape {list(output.shape)}; YOLOX gives N×85. "
            "Is the file another network's?"
        )
    grids, strides = [], []
    for stride in STRIDES:
        x, y = np.meshgrid(np.arange(size[1] // stride), np.arange(size[0] // stride))
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((x.size, 1), stride))
    grid, stride = np.concatenate(grids), np.concatenate(strides)
    center, half = (output[:, :2] + grid) * stride, np.exp(output[:, 2:4]) * stride / 2
    boxes = np.concatenate([center - half, center + half], axis=1) / ratio
    return boxes, output[:, 4] * output[:, 5 + PERSON]


def suppress(boxes: np.ndarray, scores: np.ndarray, score: float = SCORE, overlap: float = OVERLAP) -> list[int]:
    """Indices of the ``boxes`` [N, 4] above ``score`` that no surer one overlaps by more than ``overlap``."""
    order = np.flatnonzero(scores > score)
    order = order[scores[order].argsort()[::-1]]
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[shares(boxes[best], boxes[rest]) <= overlap]
    return kept


def shares(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Intersection over union of box ``one`` [4] with ``many`` [N, 4] -> [N]. Sides count a pixel more than they
    measure, as in YOLOX."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    common = np.maximum(0.0, high - low + 1).prod(axis=1)
    areas = (many[:, 2:] - many[:, :2] + 1).prod(axis=1)
    return common / ((one[2:] - one[:2] + 1).prod() + areas - common)


def crop(frame: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The person in ``box`` [4] of ``frame`` [H, W, 3] bytes as RTMPose takes it: [3, h, w] float32, and the center and
    the size [2] (width, height) of what was cut out, in pixels of the frame."""
    height, width = size
    center, scale = (box[:2] + box[2:]) * 0.5, (box[2:] - box[:2]) * MARGIN
    aspect = width / height
    wide, tall = scale
    scale = np.array([wide, wide / aspect]) if wide > tall * aspect else np.array([tall * aspect, tall])
    # Three corners of what is cut out and of the crop: its center, and from there half a width up, and left.
    corners = np.array([[0, 0], [0, -0.5], [-0.5, -0.5]])
    there, here = center + corners * scale[0], np.array([width, height]) * 0.5 + corners * width
    matrix = cv2.getAffineTransform(np.float32(there), np.float32(here))
    cut = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.float32((cut - MEAN) / STD).transpose(2, 0, 1), center, scale


def decode_points(
    across: np.ndarray, down: np.ndarray, size: np.ndarray, center: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """SimCC's two histograms [133, bins] (one along x, one along y) of a crop of ``size`` [2] (width, height) ->
    points [133, 3]: x, y in pixels of the frame, score."""
    places = np.stack([across.argmax(axis=1), down.argmax(axis=1)], axis=-1).astype(np.float32)
    scores = 0.5 * (across.max(axis=1) + down.max(axis=1))
    places[scores <= 0] = -1
    points = places / SIMCC_SPLIT / size * scale + center - scale / 2
    return np.column_stack([points, scores])


def to_openpose(points: np.ndarray) -> tuple[np.ndarray, Whole]:
    """133 points [133, 3] of COCO-WholeBody -> joints [18, 3] and the rest, in OpenPose's order.

    Confidence is 1 for what is seen and everything is 0 for what is not: comfyui_controlnet_aux takes anything below 1
    for missing. The neck is seen where both shoulders are.
    """
    seen = points[:, 2] >= SEEN
    clear = np.where(seen[:, None], np.column_stack([points[:, :2], np.ones(len(points))]), 0.0)
    neck = clear[SHOULDERS].mean(axis=0) * seen[SHOULDERS].all()
    joints = np.insert(clear[OPENPOSE], NECK, neck, axis=0)
    face = np.concatenate([clear[FACE], joints[PUPILS]]) if clear[FACE].any() else np.zeros((70, 3))
    return joints, Whole(np.stack([clear[LEFT_HAND], clear[RIGHT_HAND]]), face, clear[FEET])


def _sighting(frame: np.ndarray, points: np.ndarray, score: float) -> Sighting | None:
    """The person of ``points`` [133, 3] in ``frame`` [H, W, 3] in 0…1; None where no joint is seen."""
    joints, whole = to_openpose(points)
    if not joints[:, 2].any():
        return None
    return Sighting(joints, torso_colours(frame, joints), score, whole)
