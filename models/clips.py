"""The Shot: what is to be animated, in pixels, for its whole length; its windows, and their encoding."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import comfy.utils
import torch
from torch import Tensor

from . import latents
from .reference import GREY, Reference
from .socket_type import wrong_type

ASPECT_TOLERANCE = 0.02  # more would be seen as a stretched body
CHUNK = 16  # frames resized between two calls of ``progress``

Progress = Callable[[int], None]  # called with the number of units done so far; may raise to cancel


@dataclass(frozen=True, eq=False)  # compared by identity: tensors have no truth value
class Shot:
    """Who, where and how: what AA_SHOT carries. All frames have the shot's size; values are 0…1."""

    length: int  # frames, any number
    background: Tensor  # [1, H, W, 3] the place without the character, or [length, H, W, 3] the environment video
    pose: Tensor | None = None  # [length, H, W, 3] the drawn pose
    mask: Tensor | None = None  # [1 or length, H, W] of an environment video: 1 where the character goes
    reference: Reference | None = None
    start: Tensor | None = None  # [1, H, W, 3] the first frame itself, the character in it

    @property
    def width(self) -> int:
        return self.background.shape[2]

    @property
    def height(self) -> int:
        return self.background.shape[1]

    @property
    def has_environment(self) -> bool:
        """Whether the background is a video."""
        return len(self.background) > 1

    def conditions(self) -> dict:
        """Which of its parts is there, and in which frames: first and one past the last."""
        whole = [0, self.length]
        return {
            "pose": None if self.pose is None else whole,
            "environment": whole if self.has_environment else None,
            "reference": self.reference is not None,
        }

    @staticmethod
    def check(shot: object) -> None:
        """Raise ValueError unless ``shot``, from a socket of this name, is one."""
        if not isinstance(shot, Shot):
            raise wrong_type("shot", shot, "a shot", "Connect Shot")

    def window(self, start: int = 0, length: int = 0, hold: bool = False) -> "Shot":
        """The ``length`` frames from frame ``start`` on as a shot of its own; 0: all that follow.

        What has one frame for all times stays as it is; the first frame's picture, ``self.start``, belongs to frame 0.
        Raises ValueError when the window reaches outside; with ``hold``, the last frame is held there instead.
        """
        if not 0 <= start < self.length:
            raise ValueError(f"start: frame {start} is outside the shot. Its frames are 0 to {self.length - 1}.")
        length = length or self.length - start
        if length < 0 or (start + length > self.length and not hold):
            raise ValueError(
                f"length: {length} frames from frame {start} on reach outside the shot of {self.length} frames. "
                f"At most {self.length - start} are left from there."
            )

        def cut(frames: Tensor | None, moves: bool = True) -> Tensor | None:
            if frames is None or not moves:
                return frames
            part = frames[start : start + length]
            held = part[-1:].expand(length - len(part), *part.shape[1:])
            return torch.cat([part, held]) if len(held) else part

        return replace(
            self,
            length=length,
            background=cut(self.background, self.has_environment),
            pose=cut(self.pose),
            mask=cut(self.mask, self.mask is not None and len(self.mask) > 1),
            start=None if start else self.start,
        )


def make_shot(
    pose: Tensor,
    background: Tensor,
    reference: Reference | None = None,
    mask: Tensor | None = None,
    width: int = 0,
    height: int = 0,
    length: int = 0,
    progress: Progress | None = None,
    start_pose: Tensor | None = None,
    start: Tensor | None = None,
) -> Shot:
    """A shot from frames of any size.

    pose: [T, H, W, 3], background: [1 or T, H, W, 3 or 4], mask: [1 or T, H, W] in the background's own size. A size of
    0 follows from the pose video. A background of another aspect ratio is cropped at its centre, and its mask with it;
    a mask on a still background has no meaning and is left out. ``length`` 0: all.
    start_pose: [1, H, W, 3], the pose of the person in the background picture, becomes frame 0, and the pose video
    follows: how DynamiCtrl was trained. start: [1, H, W, 3 or 4], the first frame. Both are cropped as the background
    is.
    ``progress`` is called with the number of frames resized. Raises ValueError, naming the socket, before any frame is
    touched.
    """
    for name, frames in (("pose", pose), ("background", background), ("start_pose", start_pose), ("start", start)):
        if frames is not None:
            _check_frames(name, frames)
    if reference is not None and not isinstance(reference, Reference):
        raise wrong_type("reference", reference, "a character", "Connect Encode Character Reference")
    mask = mask if len(background) > 1 else None
    if mask is not None:
        mask = mask.reshape(-1, *mask.shape[-2:])  # [H, W] -> [1, H, W]
        _check_mask(mask, background)
    width, height = _size(pose, width, height)
    before = 0 if start_pose is None else 1
    length = _asked_length(len(pose) + before, background, length)
    done = 0

    def fit(frames: Tensor, method: str, most: int = length) -> Tensor:
        nonlocal done
        start, frames = done, frames[:most].to(pose)  # all of a shot on one device
        done += len(frames)
        fitted = _fit(frames, width, height, method, progress and (lambda count: progress(start + count)))
        if progress is not None:
            progress(done)
        return fitted

    background = fit(background[..., :3], "lanczos")
    drawn = fit(pose[..., :3], "lanczos", length - before)
    if start_pose is not None:
        drawn = torch.cat([fit(start_pose[..., :3], "lanczos", 1), drawn])

    return Shot(
        length=length,
        background=background,
        pose=drawn,
        mask=None if mask is None else fit(mask[..., None], "area")[..., 0],  # [T, H, W] -> [T, H, W, 1] and back
        reference=reference,
        start=None if start is None else fit(start[..., :3], "lanczos", 1),
    )


def _check_frames(name: str, frames: Tensor) -> None:
    if frames.ndim != 4 or not frames.shape[0]:
        raise ValueError(f"{name}: there are no frames in it (shape {tuple(frames.shape)}).")


def _check_mask(mask: Tensor, background: Tensor) -> None:
    if len(mask) not in (1, len(background)):
        raise ValueError(
            f"mask: it has {len(mask)} frames and the background video {len(background)}. Make the mask from that "
            "video, or give one mask for all frames."
        )
    if not _same_aspect(mask.shape[2], mask.shape[1], background.shape[2], background.shape[1]):
        raise ValueError(
            f"mask: it is {mask.shape[2]}×{mask.shape[1]} px and the background video {background.shape[2]}×"
            f"{background.shape[1]} px. They must show the same picture."
        )


def _same_aspect(width: int, height: int, other_width: int, other_height: int) -> bool:
    return abs(math.log(width * other_height / (height * other_width))) <= math.log(1 + ASPECT_TOLERANCE)


def _size(pose: Tensor, width: int, height: int) -> tuple[int, int]:
    """The shot's size in px. Raises ValueError where it does not suit the model or has not the pose's proportions.

    A side that follows from the other one is rounded to a step of 16, and the frames are cropped by what that is off.
    """
    own_height, own_width = pose.shape[1:3]
    derived = bool(width) != bool(height)
    if derived:
        width = width or _to_step(height * own_width / own_height)
        height = height or _to_step(width * own_height / own_width)
    width, height = width or own_width, height or own_height
    latents.check_size(width, height)
    if not derived and not _same_aspect(width, height, own_width, own_height):
        raise ValueError(
            f"pose: the video is {own_width}×{own_height} px and the shot {width}×{height} px, which would cut the "
            "body off. Set only one of the shot's width and height, or crop the driving video to their proportions."
        )
    return width, height


def _to_step(side: float) -> int:
    return max(1, round(side / latents.SIZE_STEP)) * latents.SIZE_STEP


def _asked_length(poses: int, background: Tensor, length: int) -> int:
    """How many frames the artist wants. Raises ValueError where they are not there."""
    surroundings = len(background) if len(background) > 1 else poses
    there = min(poses, surroundings)
    if length and not 1 <= length <= there:
        raise ValueError(
            f"length: {length} frames are asked for; choose 1 to {there}, the frames that pose and background have, or "
            "0 for all."
        )
    if not length and surroundings < poses:
        raise ValueError(
            f"background: the video has {surroundings} frames and the pose {poses}. Set length to {surroundings} or "
            "less, or give a background video that is as long, or a picture."
        )
    return length or there


def _fit(frames: Tensor, width: int, height: int, method: str, progress: Progress | None) -> Tensor:
    """``frames`` [T, H, W, C] covering ``width``×``height`` px, cropped at the centre: [T, height, width, C]."""
    if frames.shape[1:3] == (height, width):
        return frames
    fitted = frames.new_empty(len(frames), height, width, frames.shape[-1])
    for start in range(0, len(frames), CHUNK):
        chunk = frames[start : start + CHUNK].movedim(-1, 1)  # BHWC -> BCHW
        chunk = comfy.utils.common_upscale(chunk, width, height, method, "center")
        fitted[start : start + CHUNK] = chunk.movedim(1, -1)
        if progress is not None:
            progress(start + len(chunk))
    return fitted


@dataclass(frozen=True, eq=False)
class Encoded:
    """A shot in the model's language: latents in the VAE's scale, each [1, 16, t, h, w]."""

    background: Tensor
    pose: Tensor | None
    reference: Reference | None

    def conditions(self, controlled: bool) -> dict:
        """What goes into CONDITIONING. The negative is not ``controlled``: it lacks what guidance is to strengthen; the
        host then runs the two branches apart, so that the unconditional one pays for no control. With a model that
        was trained with text and a pose always there (DynamiCtrl), both are, and only their texts differ."""
        values = {"concat_latent_image": self.background}
        if controlled:
            values |= {"aa_pose": self.pose, "aa_reference": self.reference}
        return {key: value for key, value in values.items() if value is not None}

    def empty_latent(self) -> Tensor:
        """Zeros in the shape that is to be sampled."""
        return torch.zeros_like(self.background)


def encode(shot: Shot, vae, progress: Progress | None = None) -> Encoded:
    """Put a shot through the VAE; ``progress`` is called after each of two parts.

    Of a start picture, latent frame 0 holds the picture and the others are zero (CogVideoX-I2V). Of an environment
    video, every frame is there, with the character's region blanked (Animate Anyone 2, section 3.2); but for the first
    one, where the shot has a ``start``. Raises ValueError when the VAE is not CogVideoX's kind or the length not 8k+5.
    """
    latents.check_vae(vae)
    latents.check_length(shot.length)
    background = blank(shot.background, shot.mask)
    if shot.start is not None:
        background = torch.cat([shot.start.to(background), background[1:]])
    background = latents.encode_frames(vae, background)
    if not shot.has_environment:
        background = latents.first_frame_only(background, latents.latent_frames(shot.length))
    if progress is not None:
        progress(1)
    pose = None if shot.pose is None else latents.encode_frames(vae, shot.pose)
    if progress is not None:
        progress(2)
    return Encoded(background, pose, shot.reference)


def blank(frames: Tensor, mask: Tensor | None) -> Tensor:
    """``frames`` [T, H, W, 3] with grey where ``mask`` [1 or T, H, W] is 1.

    Grey is zero in the input of CogVideoX's VAE, "nothing" for a network that sees pictures as -1…1.
    """
    return frames if mask is None else torch.lerp(frames, torch.full_like(frames, GREY), mask[..., None].to(frames))
