"""Poses through time: the OpenPose frame list (POSE_KEYPOINT) as arrays, gaps filled, jitter smoothed.

Joints are OpenPose's 18: nose, neck, right shoulder, elbow, wrist, left shoulder, elbow, wrist, right hip, knee, ankle,
left hip, knee, ankle, right eye, left eye, right ear, left ear.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

SEEN = 0.3  # confidence from which a joint counts, as in DWPose and the host's SDPose nodes
FILLED = 0.4  # confidence of a joint that was put between two seen ones
MAX_NORMALIZED = 2.0  # a track most of whose points lie within this is in 0…1, not in pixels
LONGEST_GAP = 10  # frames

# The One-Euro filter: how much of the step to a new frame is held back at rest and full strength, how fast the speed
# follows, and how much speed (in body sizes a frame) opens the filter. BlazePose trembles by 0.004 on real clips.
STRONGEST = 0.9
VELOCITY_WEIGHT = 0.5
SPEED_RESPONSE = 60.0

# OpenPose's name of each list of a person, and where it lies in a PoseTrack: field, index after [frame, person].
PARTS = {
    "pose_keypoints_2d": ("keypoints", ()),
    "face_keypoints_2d": ("face", ()),
    "hand_left_keypoints_2d": ("hands", (0,)),
    "hand_right_keypoints_2d": ("hands", (1,)),
    "foot_keypoints_2d": ("feet", ()),
    # Not OpenPose's: other packs ignore this key. x, y, visibility, z of BlazePose's 33 landmarks.
    "blazepose_landmarks_3d": ("landmarks", ()),
}
# The shape of each field after [frame, person].
SHAPES = {
    "keypoints": (18, 3),
    "face": (70, 3),
    "hands": (2, 21, 3),
    "feet": (6, 3),
    "landmarks": (33, 4),
}
COORDINATES = {3: "x, y, confidence", 4: "x, y, visibility, z"}
# The host's SDPoseDrawKeypoints wants these lists of every person, comfyui_controlnet_aux takes them too.
ALWAYS = {"keypoints", "face", "hands"}


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """T frames of up to P people on a canvas of ``width``×``height`` pixels.

    ``keypoints`` [T, P, 18, 3] float64: x px, y px, confidence; all zero where a joint is missing. ``hands``
    [T, P, 2, 21, 3] (left, right), ``face`` [T, P, 70, 3] and ``feet`` [T, P, 6, 3] come from other detectors and are
    None where no frame has them. ``landmarks`` [T, P, 33, 4] are BlazePose's, by its own numbers: x px, y px,
    visibility, and z px, the depth (0 at the hips, negative nearer to the camera), which no other part has. A person
    keeps its index, and has zeros in frames where it is absent.
    """

    keypoints: np.ndarray
    width: int
    height: int
    hands: np.ndarray | None = None
    face: np.ndarray | None = None
    feet: np.ndarray | None = None
    landmarks: np.ndarray | None = None

    @property
    def seen(self) -> np.ndarray:
        """[T, P, 18] bool: joints to count with."""
        return self.keypoints[..., 2] >= SEEN

    @property
    def present(self) -> np.ndarray:
        """[T] bool: frames in which somebody has a seen joint."""
        return self.seen.any(axis=(1, 2))

    @property
    def measured(self) -> "PoseTrack":
        """The same people without body joints that were filled: a guess, which stands or drifts as nobody does."""
        filled = np.isclose(self.keypoints[..., 2], FILLED)
        return replace(self, keypoints=np.where(filled[..., None], 0, self.keypoints))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of points that this track has, by field."""
        return {field: getattr(self, field) for field in SHAPES if getattr(self, field) is not None}

    def only(self, person: int) -> "PoseTrack":
        """The same frames with that person alone."""
        return replace(self, **{field: array[:, [person]] for field, array in self.arrays.items()})

    def where(self, there: np.ndarray) -> "PoseTrack":
        """The same frames, with nobody outside of those that ``there`` [T] bool marks."""
        return replace(self, **{field: _where(there, array, 0) for field, array in self.arrays.items()})

    @classmethod
    def from_openpose(cls, frames: list[dict], socket: str = "pose") -> "PoseTrack":
        """From a POSE_KEYPOINT list: of this pack, the host's SDPose nodes or comfyui_controlnet_aux, with points in
        pixels or in 0…1 of the canvas.

        Raises ValueError, naming ``socket``, for an empty or malformed list and for canvases that differ.
        """
        width, height = _canvas(frames, socket)
        crowd = max(len(_people(frame, index, socket)) for index, frame in enumerate(frames))
        arrays = {field: np.zeros((len(frames), crowd, *shape)) for field, shape in SHAPES.items()}
        for index, frame in enumerate(frames):
            for number, person in enumerate(_people(frame, index, socket)):
                for name, (field, inside) in PARTS.items():
                    points = arrays[field][(index, number, *inside)]
                    _read_points(person.get(name), points, f"{socket}: {name} of person {number} in frame {index}")
        if _are_normalized(arrays.values()):
            for array in arrays.values():
                array[..., :2] *= width, height
            arrays["landmarks"][..., 3] *= width
        parts = {field: array for field, array in arrays.items() if field == "keypoints" or array.any()}
        return cls(width=width, height=height, **parts)

    def to_openpose(self) -> list[dict]:
        """The POSE_KEYPOINT list, in pixels. The last people of a frame are left out where they are absent."""
        count, crowd = self.keypoints.shape[:2]
        arrays = self.arrays
        arrays |= {field: np.zeros((count, crowd, *SHAPES[field])) for field in ALWAYS - arrays.keys()}
        parts = {name: (arrays[field], inside) for name, (field, inside) in PARTS.items() if field in arrays}
        frames = []
        for index in range(count):
            there = [number for number in range(crowd) if any(array[index, number].any() for array in arrays.values())]
            people = [
                {name: array[(index, number, *inside)].flatten().tolist() for name, (array, inside) in parts.items()}
                for number in range(max(there, default=-1) + 1)
            ]
            frames.append({"people": people, "canvas_width": self.width, "canvas_height": self.height})
        return frames

    def resized(self, width: int, height: int) -> "PoseTrack":
        """The same pose on another canvas, stretched as a picture would be."""
        if (width, height) == (self.width, self.height):
            return self
        across, down = width / self.width, height / self.height
        stretch = np.array([across, down, 1.0, across])  # depth is measured in pixels of x
        return replace(
            self, width=width, height=height, **{k: a * stretch[: a.shape[-1]] for k, a in self.arrays.items()}
        )


def fill_gaps(track: PoseTrack, longest: int = LONGEST_GAP) -> tuple[PoseTrack, np.ndarray]:
    """Give every frame a pose; filled joints have confidence `FILLED`.

    The first person, who leads, is interpolated between two sightings and held at the ends. Others come and go: they
    are interpolated over gaps of at most ``longest`` frames only. So is a single joint while the rest of the person is
    there: one that is gone for longer is hidden (the face of somebody who turns away), and inventing it would tell the
    video model a lie. Hands, face and feet stay.
    Returns the track and, [T] bool, the frames in which a whole person was filled.
    """
    keypoints, seen = track.keypoints.copy(), track.seen
    present = seen.any(axis=2)  # [T, P]
    for person in np.flatnonzero(present.any(axis=0)):
        for joint in range(keypoints.shape[2]):
            _fill_joint(keypoints[:, person, joint], seen[:, person, joint], present[:, person], longest, person == 0)
        if person > 0:
            continue
        first, last = np.flatnonzero(present[:, person])[[0, -1]]
        for end, source in ((slice(0, first), first), (slice(last + 1, None), last)):
            kept = seen[source, person]
            keypoints[end, person] = np.where(kept[:, None], keypoints[source, person], 0)
            keypoints[end, person, kept, 2] = FILLED
    filled = replace(track, keypoints=keypoints)
    return filled, (filled.seen.any(axis=2) & ~present).any(axis=1)


def drop(track: PoseTrack, frames: np.ndarray) -> PoseTrack:
    """``track`` as if nobody had been seen in ``frames`` [T] bool, and these filled from the frames around, as
    fill_gaps() does it. Other frames stay as they are."""
    left = replace(track, **{field: _where(frames, 0, array) for field, array in track.arrays.items()})
    return replace(left, keypoints=_where(frames, fill_gaps(left)[0].keypoints, track.keypoints))


def _where(frames: np.ndarray, there: np.ndarray | int, elsewhere: np.ndarray | int) -> np.ndarray:
    rest = max(np.ndim(there), np.ndim(elsewhere)) - 1
    return np.where(frames.reshape(-1, *(1,) * rest), there, elsewhere)


def _fill_joint(points: np.ndarray, seen: np.ndarray, present: np.ndarray, longest: int, leads: bool) -> None:
    """Interpolate one joint's ``points`` [T, 3] in place between the frames where it is ``seen`` [T]."""
    for before, after in pairwise(np.flatnonzero(seen)):
        gap = np.arange(before + 1, after)
        if len(gap) and (present[gap].sum() if leads else len(gap)) <= longest:
            share = (gap - before)[:, None] / (after - before)
            points[gap, :2] = points[before, :2] + share * (points[after, :2] - points[before, :2])
            points[gap, 2] = FILLED


def smooth(track: PoseTrack, strength: float) -> PoseTrack:
    """Take the jitter out of joints at rest and let fast ones be: the One-Euro filter (Casiez et al. 2012).

    ``strength`` is 0 (the track itself) to 1. The clip is whole, so the filter runs over it both ways and the mean is
    taken: the two lags cancel. Raises ValueError outside 0…1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"smoothing must be between 0 and 1; {strength} is not.")
    if strength == 0:
        return track
    sizes = _body_sizes(track)[:, None, None]  # [P, 1, 1]
    arrays = {}
    for field, array in track.arrays.items():
        points = array.reshape(*array.shape[:2], -1, array.shape[-1])  # [T, P, N, 3 or 4]
        seen = points[..., 2] >= SEEN
        forward = _one_euro(points[..., :2], seen, sizes, strength)
        backward = _one_euro(points[::-1, ..., :2], seen[::-1], sizes, strength)[::-1]
        both = np.concatenate([(forward + backward) / 2, points[..., 2:]], axis=-1)
        arrays[field] = np.where(seen[..., None], both, points).reshape(array.shape)
    return replace(track, **arrays)


def _one_euro(points: np.ndarray, seen: np.ndarray, sizes: np.ndarray, strength: float) -> np.ndarray:
    """One pass over ``points`` [T, P, N, 2]; the filter starts anew after a frame where ``seen`` [T, P, N] is false.

    Casiez et al., eq. 1, 5 and 6, with one frame as the unit of time and ``sizes`` [P, 1, 1] as those of length, so
    that one strength fits all clips.
    """
    weight_at_rest = 1 - STRONGEST * strength**0.5  # the root: a third of the strength does more than half
    out = points.copy()
    velocity = np.zeros_like(points[0])
    for index in range(1, len(points)):
        known = (seen[index] & seen[index - 1])[..., None]
        step = points[index] - out[index - 1]
        velocity = np.where(known, velocity + VELOCITY_WEIGHT * (step - velocity), 0)
        speed = np.linalg.norm(velocity, axis=-1, keepdims=True) / sizes
        cutoff = weight_at_rest / (1 - weight_at_rest) + SPEED_RESPONSE * speed
        out[index] = np.where(known, out[index - 1] + step * cutoff / (1 + cutoff), points[index])
    return out


def _body_sizes(track: PoseTrack) -> np.ndarray:
    """[P] px: the diagonal of the box around a person's joints, its median over time; the canvas where unknown."""
    known = np.where(track.seen[..., None], track.keypoints[..., :2], np.nan)
    sizes = np.full(known.shape[1], float(max(track.width, track.height)))
    for person in np.flatnonzero(track.seen.any(axis=(0, 2))):
        points = known[track.seen[:, person].any(axis=1), person]  # [t, 18, 2]
        diagonals = np.linalg.norm(np.nanmax(points, axis=1) - np.nanmin(points, axis=1), axis=-1)
        sizes[person] = max(1.0, np.median(diagonals))
    return sizes


def _canvas(frames: list[dict], socket: str) -> tuple[int, int]:
    if not isinstance(frames, list | tuple) or not frames:
        found = "an empty list" if isinstance(frames, list | tuple) else type(frames).__name__
        raise ValueError(f"{socket}: expected a list with one entry a frame, found {found}.")
    sizes = [_canvas_of(frame, index, socket) for index, frame in enumerate(frames)]
    width, height = sizes[0]
    for index, size in enumerate(sizes):
        if size != sizes[0]:
            raise ValueError(
                f"{socket}: all frames need one canvas size; frame 0 has {width}×{height}, frame {index} has "
                f"{size[0]}×{size[1]}."
            )
    return width, height


def _canvas_of(frame: dict, index: int, socket: str) -> tuple[int, int]:
    if not isinstance(frame, dict) or not {"canvas_width", "canvas_height"} <= frame.keys():
        raise ValueError(f"{socket}: frame {index} has no canvas_width and canvas_height; is this a POSE_KEYPOINT?")
    given = frame["canvas_width"], frame["canvas_height"]
    try:
        width, height = (int(float(side)) for side in given)  # some write numbers as text
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{socket}: the canvas of frame {index} is {given[0]!r}×{given[1]!r}. Give its size in px."
        ) from error
    if min(width, height) <= 0:
        raise ValueError(f"{socket}: the canvas must be larger than 0×0; it is {width}×{height}.")
    return width, height


def _people(frame: dict, index: int, socket: str) -> list[dict]:
    people = frame.get("people") or []
    if not isinstance(people, list | tuple) or not all(isinstance(person, dict) for person in people):
        raise ValueError(f"{socket}: people of frame {index} must be a list of keypoint lists.")
    return people


def _read_points(numbers: list[float] | None, into: np.ndarray, what: str) -> None:
    """Write a flat list x, y, confidence, … into ``into`` [n, 3 or 4]; nothing where there is none.

    A point without a finite place is missing; one without a confidence (None) counts as sure.
    """
    if numbers is None or (hasattr(numbers, "__len__") and len(numbers) == 0):
        return
    try:
        points = np.array(numbers, dtype=np.float64)  # None becomes NaN, and text a number
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} holds something that is no number.") from error
    count, width = into.shape
    # Some detectors leave the two pupils out of the 70 points of a face.
    if points.shape != (width * count,) and (count, points.shape) != (70, (3 * 68,)):
        raise ValueError(
            f"{what} must be {count} times {COORDINATES[width]}, {width * count} numbers; there are {points.size}."
        )
    points = points.reshape(-1, width)
    unsaid = np.array([value is None for value in numbers]).reshape(-1, width)
    points[unsaid[:, 2], 2] = points[unsaid[:, 2], :2].any(axis=1)  # 0, 0 is how a missing point is written
    known = np.isfinite(points).all(axis=1)
    if not (known | unsaid.any(axis=1)).any():
        raise ValueError(f"{what} holds numbers that are not finite.")
    into[: len(points)] = np.where(known[:, None], points, 0)


def _are_normalized(arrays: Iterable[np.ndarray]) -> bool:
    """Whether the points are in 0…1 of the canvas: most of them decide, for a single joint may be far outside."""
    known = np.concatenate([array[array[..., 2] > 0][:, :2] for array in arrays])
    reach = abs(known[known.any(axis=1)]).max(axis=1, initial=0)  # 0, 0 is no place
    return len(reach) > 0 and float(np.median(reach)) <= MAX_NORMALIZED
