"""Character masks: the shape-agnostic mask of Animate Anyone 2, growing, feathering, and fitting a mask to its video.

A pixel belongs to the character where the mask is above 0.5, which is also where feather() leaves the outline.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

INSIDE = 0.5
BLOCK = 10  # px; "During inference, we set k_h = h/10 and k_w = w/10", Animate Anyone 2, section 3.2
FEWEST_BLOCKS = 2  # a side in training: one block is a plain box
FINEST_BLOCK = 5  # px: finer ones show the outline
# typical_block(): px = TYPICAL_BLOCK_SCALE · extent^TYPICAL_BLOCK_EXPONENT. Fitted by scripts/bench_masks.py.
TYPICAL_BLOCK_SCALE = 0.945
TYPICAL_BLOCK_EXPONENT = 0.6

Progress = Callable[[int], None]


def fit_mask(mask: Tensor, frames: Tensor) -> Tensor:
    """``mask`` [T, H, W], [1, H, W] or [H, W] as [T, H, W], one a frame of ``frames`` [T, H, W, C]; a single mask is
    repeated (a view, no copy).

    Raises ValueError where ``frames`` is empty, or the two differ in length or in size.
    """
    count, height, width = frames.shape[:3]
    if count == 0:
        raise ValueError("images: the video is empty (0 frames). Wire a video or a picture with at least one frame.")
    mask = three_dimensions(mask)
    if mask.shape[1:] != (height, width):
        raise ValueError(
            f"mask: its size is {mask.shape[2]}×{mask.shape[1]} pixels, but images are {width}×{height}. Make the mask "
            "from these images, or resize it to their size."
        )
    if mask.shape[0] == 1:
        return mask.expand(count, -1, -1)
    if mask.shape[0] != count:
        raise ValueError(
            f"mask: it has {mask.shape[0]} frames, but images have {count}. Make the mask from these images; a single "
            "mask is also right, and serves for every frame."
        )
    return mask


class Cropped:
    """A mask of something small through a video: of each frame only the box around it is kept, in 256 steps."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[tuple[slice, slice], Tensor]] = {}

    def put(self, frame: int, mask: Tensor) -> None:
        """Keep the ``mask`` [H, W] in 0…1 of a frame."""
        steps = (mask * 255).round().to(torch.uint8)
        box = bounding_box(steps.numpy())
        self._parts[frame] = box, steps[box].clone()

    def parts(self) -> Iterator[tuple[int, tuple[slice, slice], Tensor]]:
        """(frame, box, mask [h, w] in 0…1 within the box) of all frames that were put."""
        for frame, (box, steps) in self._parts.items():
            yield frame, box, steps / 255


def three_dimensions(mask: Tensor, socket: str = "mask") -> Tensor:
    """``mask`` [H, W], [T, H, W], [T, 1, H, W] or [T, H, W, 1] as [T, H, W].

    Raises ValueError, naming ``socket``, for anything else, and for no frames at all.
    """
    if mask.ndim == 4 and 1 in (mask.shape[1], mask.shape[3]):
        mask = mask.squeeze(1 if mask.shape[1] == 1 else 3)
    if mask.ndim not in (2, 3):
        raise ValueError(
            f"{socket}: expected [frames, height, width], got {list(mask.shape)}. Wire a MASK, not an image."
        )
    if mask.numel() == 0:
        raise ValueError(f"{socket}: it is empty ({list(mask.shape)}). Wire a mask with at least one frame.")
    return mask if mask.ndim == 3 else mask[None]


def shape_agnostic(
    mask: Tensor,
    block_height: int = BLOCK,
    block_width: int = BLOCK,
    progress: Progress | None = None,
    *,
    steady: bool = False,
) -> Tensor:
    """Hide the character's outline in blocks: Animate Anyone 2, section 3.2, eq. 2.

    The bounding box (h×w) of each frame's mask is split into k_h×k_w blocks, k_h = ⌈h / block_height⌉ and
    k_w = ⌈w / block_width⌉. Blocks start at the box's top left corner and are block_height×block_width px; those of
    the last row and column hold what remains of the box, so that nothing outside the box is covered. A block is 1
    where any pixel of it is of the character.

    ``steady``: the first box lays the grid for all frames, so that the blocks stand still while boxes come and go; the
    first frame is the paper's, and later boxes cut their outer blocks on every side.

    ``mask`` [T, H, W] -> [T, H, W] of 0 and 1; a frame without the character stays empty. ``progress`` is called with
    the number of frames done. Raises ValueError for block sizes below 1.
    """
    for name, value in (("block_height", block_height), ("block_width", block_width)):
        if value < 1:
            raise ValueError(f"{name} is {value}; a block needs at least 1 pixel. The paper uses {BLOCK}.")
    anchor = None  # a corner (row, column) of the grid

    def in_blocks(frame: np.ndarray) -> np.ndarray:
        nonlocal anchor
        out = (frame > INSIDE).astype(np.uint8)
        box = bounding_box(out)
        if out[box].size:
            corner = box[0].start, box[1].start
            anchor = anchor if steady and anchor else corner
            rows = _grid_lines(anchor[0] - corner[0], block_height, out[box].shape[0])
            columns = _grid_lines(anchor[1] - corner[1], block_width, out[box].shape[1])
            out[box] = _fill_blocks(out[box], rows, columns)
        return out

    return _each_frame(mask, in_blocks, progress)


def random_block(rng: np.random.Generator, mask: Tensor) -> tuple[int, int]:
    """Height and width in px of blocks as training has them: their counts k_h and k_w drawn at random, from 2 up to
    blocks of 5 px, over the largest box around the character in ``mask`` [T, H, W].

    Animate Anyone 2, section 3.2, has "k_h ∈ (1, h), k_w ∈ (1, w)" and no distribution. Here the logarithm of the
    count is even, so that coarse grids come as often as fine ones, which an even count would hardly ever bring.
    """
    sides = []
    for extent in _largest_box(mask):
        count = FEWEST_BLOCKS * max(extent / FINEST_BLOCK / FEWEST_BLOCKS, 1) ** rng.random()
        sides.append(max(1, round(extent / count)))
    return sides[0], sides[1]


def typical_block(mask: Tensor) -> tuple[int, int]:
    """Height and width in px of blocks that hide as much as those of random_block() do on average, over the largest
    box around the character in ``mask`` [T, H, W].

    They are fitted to the IoU of blocks and outline of the people in three real clips, 128 to 1360 px wide.
    """
    sides = [TYPICAL_BLOCK_SCALE * extent**TYPICAL_BLOCK_EXPONENT for extent in _largest_box(mask)]
    height, width = (max(1, round(side)) for side in sides)
    return height, width


def _largest_box(mask: Tensor) -> tuple[int, int]:
    """Height and width in px, each the largest over the boxes of all frames of ``mask`` [T, H, W]."""
    boxes = [bounding_box((frame > INSIDE).cpu().numpy()) for frame in three_dimensions(mask)]
    height, width = (max(box[axis].stop - box[axis].start for box in boxes) for axis in range(2))
    return height, width


def _grid_lines(anchor: int, block: int, length: int) -> np.ndarray:
    """Where the blocks of a grid through ``anchor`` begin within 0…``length``, the first, cut or whole, at 0."""
    return np.union1d(0, np.arange(anchor % block, length, block))


def _fill_blocks(box: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``box`` [h, w] with the maximum of its block in every pixel; ``rows`` and ``columns`` are where blocks begin."""
    height, width = box.shape
    maxima = np.maximum.reduceat(box, rows, axis=0)  # [k_h, w]
    maxima = np.maximum.reduceat(maxima, columns, axis=1)  # [k_h, k_w]
    heights, widths = np.diff(rows, append=height), np.diff(columns, append=width)
    return maxima.repeat(heights, 0).repeat(widths, 1)


def grow(mask: Tensor, pixels: int, progress: Progress | None = None, into: Tensor | None = None) -> Tensor:
    """Move the outline outwards by ``pixels`` (a disc), or inwards where negative: [T, H, W] -> [T, H, W] of 0 and 1.

    The picture's border is no outline: a mask cut by it is not drawn back from it. 0 gives the mask as it is. ``into``
    [T, H, W] takes what is made; it may be ``mask`` itself, where a long video should not be held twice.
    """
    if pixels == 0:
        return three_dimensions(mask)
    return _each_frame(mask, lambda frame: grow_frame(frame > INSIDE, pixels), progress, into)


def trimap(mask: Tensor, width: int, into: Tensor | None = None) -> Tensor:
    """1 inside the outline, 0 outside, and 0.5 within ``width`` px of it: [T, H, W] -> [T, H, W]. ``into`` as in
    `grow`."""

    def bands(frame: np.ndarray) -> np.ndarray:
        inside = frame > INSIDE
        return (np.float32(grow_frame(inside, -width)) + grow_frame(inside, width)) / 2

    return _each_frame(mask, bands, None, into)


def grow_frame(inside: np.ndarray, pixels: int) -> np.ndarray:
    """``inside`` [H, W] bool grown by ``pixels``, see grow()."""
    out = inside.astype(np.uint8)
    box = bounding_box(out, margin=max(pixels, 0) + 1)
    near = out[box]
    if pixels and near.size:
        distance = cv2.distanceTransform(1 - near if pixels > 0 else near, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        out[box] = distance <= pixels if pixels > 0 else distance > -pixels
    return out.astype(bool)


def feather(mask: Tensor, pixels: int, progress: Progress | None = None, into: Tensor | None = None) -> Tensor:
    """Soften the edge, ``pixels`` to either side, the outline staying where the mask is 0.5: [T, H, W] -> [T, H, W].

    Where the mask touches the picture's border it stays whole. 0 leaves the mask as it is. ``into`` as in `grow`.
    Raises ValueError below 0.
    """
    if pixels < 0:
        raise ValueError(f"feather is {pixels}; it must be 0 (hard edge) or more pixels.")
    if pixels == 0:
        return three_dimensions(mask)
    size = 2 * pixels + 1
    sigma = pixels / 2.6  # the kernel's last weight is then about 3 % of its first: no visible step at its rim

    def softened(frame: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(frame, (size, size), sigma, borderType=cv2.BORDER_REPLICATE)

    return _each_frame(mask, softened, progress, into)


def close_lapses(covered: np.ndarray, longest: int) -> None:
    """Close the lapses of ``covered`` [T, H, W] (bool, or a mask in 0…1) in place: where it is low for at most
    ``longest`` frames between two where it is high, it becomes as high as the lower of the two. What is closed already
    changes nothing more."""
    for length in range(1, longest + 1):
        for first in range(1, len(covered) - length):
            around = np.minimum(covered[first - 1], covered[first + length])
            lapse = covered[first : first + length]
            np.maximum(lapse, around, out=lapse)


def bounding_box(inside: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the box around everything in ``inside`` [H, W] bool or uint8, ``margin`` px wider on each
    side but within the picture. Empty slices where there is nothing."""
    height, width = inside.shape
    x, y, w, h = cv2.boundingRect(inside.astype(np.uint8, copy=False))
    if w == 0:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(y - margin, 0), min(y + h + margin, height)),
        slice(max(x - margin, 0), min(x + w + margin, width)),
    )


def _each_frame(
    mask: Tensor, change: Callable[[np.ndarray], np.ndarray], progress: Progress | None, into: Tensor | None = None
) -> Tensor:
    """``change`` [H, W] -> [H, W] for every frame of ``mask``; the result is ``into``, or new: float32 on the mask's
    device."""
    mask = three_dimensions(mask)
    out = torch.empty(mask.shape, dtype=torch.float32) if into is None else into
    for index, frame in enumerate(mask):
        out[index] = torch.from_numpy(change(frame.float().cpu().numpy()))
        if progress is not None:
            progress(index + 1)
    return out.to(mask.device)
