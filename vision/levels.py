"""Drift control: how the colours of a frame have drifted from the truth, and the way back, in linear light.

    compare(frame, truth, hidden=None) -> Reading | None        pictures [H, W, 3] of the same view, pixel by pixel
    Anchor(picture, hidden=None).read(frame, hidden=None)       the frame's view may have moved since; Reading | None
    Reading: level (takes the frame's colours to the truth's), drift (ΔE before correction), share (of the picture)
    Level: gain [3], offset [3]; towards(strength), to_json(), Level.from_json(values); IDENTITY
    apply(frames [T, H, W, 3], first, last) -> [T, H, W, 3]     fades from one level to the other over the frames

Pictures are in 0…1, hidden is [H, W], nonzero where no background is. A gain and an offset for each colour in linear
light are what exposure, white balance, contrast and fog do to a picture. They are read from coarse cells, so that
noise, softness and a register that is off by a pixel do not count, and from those cells only that agree on one answer:
who walks through the picture is not one of them, known to ``hidden`` or not.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .frames import picture as to_picture
from .registration import Place

CELLS = 128  # along the longer side: a texture finer than this says nothing of light
SOFT = 2.0  # cells: sigma of the blur over them
HALO = np.ones((9, 9), np.uint8)  # cells around somebody whom no mask tells of: two sigma each way
VISIBLE = 0.5  # of a cell's weight must be background
GAINS = 0.5, 2.0  # what is beyond was misread
# sRGB values: cells that differ from the common answer by more than the bound (Tukey's) count nothing. It follows the
# spread of those that do count between these limits, which a person in half of the picture does not widen.
BOUND = 0.02, 0.08
RIDGE = 0.01**2  # a picture with so little contrast (sRGB values, squared) tells no gain, only where it lies
CLIPPED = 0.002, 0.995  # sRGB values: at the ends of the range a frame has lost what it was,
FULL = 0.02  # and a cell its colour when it has lost as much
ROUNDS = 20  # of reweighting the cells at most,
DONE = 1e-6  # of light: it is over when gain and offset change by less
GUESSES = 64  # pairs of cells, each with a level that would explain them
SCALE = 0.03  # sRGB values: cells this far from a guess speak for it by half
LEAST = 0.05  # of the picture must be background in both,
NEAR = 0.03  # sRGB values: cells that come out this near to the truth agree,
AGREE = 0.3  # which so much of the background must, or the pictures have nothing in common
EVEN = 0.012  # sRGB values: cells that spread less about their surroundings are a plain backdrop, which has no place,
SURELY = 0.6  # and so much of which must agree, when nothing else says that the pictures show the same


@dataclass(frozen=True, eq=False)
class Level:
    """frame -> gain · frame + offset, in linear light, for each colour [3]."""

    gain: ndarray
    offset: ndarray

    @property
    def is_identity(self) -> bool:
        return bool((self.gain == 1).all() and (self.offset == 0).all())

    def towards(self, strength: float) -> "Level":
        """A part of the way: 0 is the identity, 1 the level itself."""
        return between(IDENTITY, self, strength)

    def to_json(self) -> dict[str, list[float]]:
        return {"gain": self.gain.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, list[float]]) -> "Level":
        return cls(np.array(values["gain"], float), np.array(values["offset"], float))


IDENTITY = Level(np.ones(3), np.zeros(3))


def between(first: Level, last: Level, share: float) -> Level:
    """``first`` at 0, ``last`` at 1, and on a straight line from one to the other; exact at both ends."""
    if share in (0, 1):
        return last if share else first
    return Level(*(a + share * (b - a) for a, b in ((first.gain, last.gain), (first.offset, last.offset))))


@dataclass(frozen=True, eq=False)
class Reading:
    """level: takes the frame's colours to the truth's. drift: how far they are apart before that, the mean distance in
    CIELAB (ΔE 1976; 2 is just seen). share: of the whole picture, how much was compared and agrees."""

    level: Level
    drift: float
    share: float


# --- sRGB -------------------------------------------------------------------------------------------------------------


def to_linear(values: Tensor) -> Tensor:
    """sRGB values 0…1 as linear light (IEC 61966-2-1)."""
    return torch.where(values <= 0.04045, values / 12.92, ((values.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Linear light 0…1 as sRGB values."""
    # Written from white down, because in single precision 1.055 - 0.055 is less than 1.
    return torch.where(light <= 0.0031308, light * 12.92, 1 - 1.055 * (1 - light.clamp_min(0.0031308) ** (1 / 2.4)))


def _slope(light: ndarray) -> ndarray:
    """Of the sRGB curve, at ``light``: what a step of light is in sRGB values."""
    return np.where(light <= 0.0031308, 12.92, 1.055 / 2.4 * np.maximum(light, 0.0031308) ** (1 / 2.4 - 1))


def _light(values: ndarray) -> ndarray:
    return to_linear(torch.from_numpy(values)).numpy()


# --- correction -------------------------------------------------------------------------------------------------------


def apply(frames: Tensor, first: Level, last: Level) -> Tensor:
    """``frames`` [T, H, W, 3] with the level ``first`` at the first frame and ``last`` at the last, fading evenly in
    between, clamped to 0…1. With two identities the very same frames; so is each frame whose level is the identity."""
    if first.is_identity and last.is_identity:
        return frames
    levelled = torch.empty_like(frames)
    for t, frame in enumerate(frames):  # one by one: memory stays flat
        level = between(first, last, t / max(1, len(frames) - 1))
        levelled[t] = frame if level.is_identity else _levelled(frame, level)
    return levelled


def _levelled(frame: Tensor, level: Level) -> Tensor:
    gain, offset = (torch.from_numpy(part).to(frame.device, torch.float32) for part in (level.gain, level.offset))
    light = to_linear(frame.float()) * gain + offset
    return to_srgb(light.clamp(0, 1)).clamp(0, 1).to(frame.dtype)


# --- reading ----------------------------------------------------------------------------------------------------------


def compare(frame: Tensor, truth: Tensor, hidden: ndarray | Tensor | None = None) -> Reading | None:
    """How ``frame`` has drifted from ``truth``, both [H, W, 3] and of the same view. None where too little of the
    background is seen, or too little of it agrees on one answer. Raises ValueError where the sizes differ."""
    if frame.shape != truth.shape:
        raise ValueError(
            f"frame: it is {tuple(frame.shape)} and the truth {tuple(truth.shape)}; they must be one view."
        )
    clear = np.ones(frame.shape[:2], np.float32) if hidden is None else np.float32(np.asarray(hidden) == 0)
    return _read(to_picture(frame), to_picture(truth), clear, AGREE)


class Anchor:
    """The first picture of a shot, [H, W, 3], that every later frame is held to. ``hidden``: [H, W]."""

    def __init__(self, picture: Tensor, hidden: ndarray | Tensor | None = None) -> None:
        self.picture = picture
        self.hidden = _mask(hidden, picture)
        self.place = Place(picture, self.hidden)
        clear = np.float32(self.hidden == 0)
        cells, weight = _cells(to_picture(picture), clear)
        around, _ = _blurred(cells, weight, 4 * SOFT)
        seen = weight > VISIBLE
        self.even = bool(seen.any()) and float((cells - around)[seen].std(axis=0).max()) < EVEN

    def read(self, frame: Tensor, hidden: ndarray | Tensor | None = None) -> Reading | None:
        """How a later ``frame`` [H, W, 3] of the same size has drifted, wherever the camera has gone since. None where
        it cannot be found in the first picture, or shows too little of it. A plain backdrop, which has nothing to find,
        is compared as it lies. Raises ValueError where the sizes differ."""
        if frame.shape != self.picture.shape:
            sizes = f"{tuple(frame.shape)} and the first picture {tuple(self.picture.shape)}"
            raise ValueError(f"frame: it is {sizes}; they must be equal in size.")
        hidden = _mask(hidden, frame)
        there = self.place.find(frame, hidden)
        if there is None and not self.even:
            return None
        seen, shown = to_picture(frame), np.float32(hidden == 0)
        if there is not None:
            size, flags = seen.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            seen, shown = (cv2.warpPerspective(part, there, size, flags=flags) for part in (seen, shown))
        clear = np.float32((shown > 0.999) & (self.hidden == 0))
        return _read(seen, to_picture(self.picture), clear, SURELY if there is None else AGREE)


def _mask(hidden: ndarray | Tensor | None, picture: Tensor) -> ndarray:
    return np.zeros(picture.shape[:2], bool) if hidden is None else np.asarray(hidden) != 0


def _cells(picture: ndarray, clear: ndarray) -> tuple[ndarray, ndarray]:
    """``picture`` [H, W, 3] as soft cells [h, w, 3], means over what is ``clear`` [H, W] alone, and how much [h, w] of
    each is. Means are of sRGB values: those of light would take noise for brightness."""
    longer = max(picture.shape[:2])
    scale = min(1.0, min(CELLS, max(longer // 2, 16)) / longer)
    size = tuple(max(1, round(side * scale)) for side in reversed(picture.shape[:2]))
    weight = cv2.resize(clear, size, interpolation=cv2.INTER_AREA)
    cells = cv2.resize(picture * clear[..., None], size, interpolation=cv2.INTER_AREA)
    return _blurred(cells / np.maximum(weight, 1e-6)[..., None], weight, SOFT)


def _blurred(cells: ndarray, weight: ndarray, sigma: float) -> tuple[ndarray, ndarray]:
    spread = cv2.GaussianBlur(weight, (0, 0), sigma)
    return cv2.GaussianBlur(cells * weight[..., None], (0, 0), sigma) / np.maximum(spread, 1e-6)[..., None], spread


def _read(frame: ndarray, truth: ndarray, clear: ndarray, agree: float) -> Reading | None:
    """Reading of two pictures [H, W, 3] where ``clear`` [H, W] is 1; at least the share ``agree`` of it must agree."""
    frame, truth = (np.clip(picture, 0, 1) for picture in (frame, truth))
    lost = np.float32((frame < CLIPPED[0]) | (frame > CLIPPED[1]))
    (seen, weight), (should, _), (lost, _) = (_cells(picture, clear) for picture in (frame, truth, lost))
    told = weight > VISIBLE
    if told.mean() < LEAST or told.sum() < 3:
        return None
    level, sure, distance = _fit(seen[told], should[told], lost[told])
    if (distance < NEAR).mean() < agree:
        return None
    wrong = np.zeros(told.shape, np.uint8)
    wrong[told] = sure == 0
    beside = told & (cv2.dilate(cv2.morphologyEx(wrong, cv2.MORPH_OPEN, np.ones((3, 3))), HALO) == 0)
    if beside.mean() >= LEAST:  # cells beside somebody are tinted by the blur, too little to be wrong themselves
        told = beside
        level, sure, _ = _fit(seen[told], should[told], lost[told], level)
    lab = [cv2.cvtColor(np.float32(cells[told])[None], cv2.COLOR_RGB2LAB)[0] for cells in (seen, should)]
    drift = np.average(np.linalg.norm(lab[0] - lab[1], axis=1), weights=sure)
    return Reading(level, float(drift), float((sure > 0).sum() / told.size))


def _fit(seen: ndarray, should: ndarray, lost: ndarray, start: Level | None = None) -> tuple[Level, ndarray, ndarray]:
    """The level that takes most of the colours ``seen`` [N, 3] to what they ``should`` be, sRGB values; how sure [N]
    each is of it, and how far [N] it comes out from there. Least squares reweighted with Tukey's biweight, from
    ``start`` or the best of many guesses, since half of the picture may say something else. ``lost``: the share of
    each cell and colour that is clipped in the frame."""
    x, y = _light(np.float64(seen)), _light(np.float64(should))
    step = _slope(y)  # residuals count as they are seen, in sRGB values
    usable = lost < FULL
    usable[:, usable.mean(axis=0) < LEAST] = True  # a picture that is all black or white has no other colours

    def far(gain: ndarray, offset: ndarray) -> ndarray:
        return np.sqrt(np.mean(((gain * x + offset - y) * step * usable) ** 2, axis=1))

    guesses = _guesses(x, y) if start is None else [(start.gain, start.offset)]
    gain, offset = min(guesses, key=lambda guess: _cost(far(*guess), guess[0]))
    bound = BOUND[1]
    for _ in range(ROUNDS):
        distance = far(gain, offset)
        near = distance[distance < bound]
        bound = np.clip(4.685 * 1.4826 * np.median(near), *BOUND) if len(near) else BOUND[1]
        sure = np.maximum(0, 1 - (distance / bound) ** 2) ** 2
        before, (gain, offset) = (gain, offset), _least_squares(x, y, sure[:, None] * usable * step**2, sure)
        if np.allclose((gain, offset), before, rtol=0, atol=DONE):
            break
    return Level(gain, offset), sure, far(gain, offset)


def _cost(distance: ndarray, gain: ndarray) -> float:
    """Geman and McClure's, and a little for gains that are unlikely."""
    return float(np.mean(distance**2 / (distance**2 + SCALE**2)) + 0.05 * np.mean(np.log(gain) ** 2))


def _guesses(x: ndarray, y: ndarray) -> list[tuple[ndarray, ndarray]]:
    """Gains and offsets [3] that would take the light ``x`` to ``y`` [N, 3]."""
    one, median = np.ones(3), np.median(y - x, axis=0)
    ratio = np.clip(np.median(y, axis=0) / np.maximum(np.median(x, axis=0), 1e-6), *GAINS)
    guesses = [(one, np.zeros(3)), (one, median), (ratio, np.zeros(3))]
    for first, second in np.random.default_rng(0).integers(len(x), size=(GUESSES, 2)):
        apart = x[second] - x[first]
        gain = np.where(abs(apart) > 1e-3, (y[second] - y[first]) / np.where(abs(apart) > 1e-3, apart, 1), 1)
        gain = np.clip(gain, *GAINS)
        guesses.append((gain, (y[first] + y[second] - gain * (x[first] + x[second])) / 2))
    return guesses


def _least_squares(x: ndarray, y: ndarray, weight: ndarray, sure: ndarray) -> tuple[ndarray, ndarray]:
    """Gain and offset [3] from ``x`` to ``y`` [N, 3] with ``weight`` [N, 3]; the gain is held to 1 by the ridge."""
    total = np.maximum(weight.sum(axis=0), 1e-12)
    middle_x, middle_y = (weight * x).sum(axis=0) / total, (weight * y).sum(axis=0) / total
    ridge = RIDGE * sure.sum() + 1e-12
    joint = (weight * (x - middle_x) * (y - middle_y)).sum(axis=0)
    own = (weight * (x - middle_x) ** 2).sum(axis=0)
    gain = np.clip((joint + ridge) / (own + ridge), *GAINS)
    return gain, middle_y - gain * middle_x
