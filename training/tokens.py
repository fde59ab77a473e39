"""What a token of the transformer stands for: which frames, which camera, whether it sees the person.

Shapes: B clips; T frames of H×W px; t×h×w tokens.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.latents import FRAMES_PER_LATENT, PATCH, SIZE_STEP, check_length, frames_of, latent_frames
from ..vision.geometry import Cameras


def token_frames(frames: int) -> list[range]:
    """The frames that each token frame of a clip of ``frames`` frames stands for: 0…4, 5…12, 13…20, …

    The first latent frame holds one frame, the others four, and a token pairs two of them. Raises ValueError unless
    there are 8k+5 frames.
    """
    check_length(frames, "frames")
    starts = [max(0, frames_of(latent)) for latent in range(0, latent_frames(frames) + 1, PATCH)]
    return [range(first, after) for first, after in pairwise(starts)]


def token_cameras(cameras: Cameras) -> Cameras:
    """Cameras [B, T] of the frames -> [B, t] of the token frames: the camera of each one's middle frame (2, 8, 16, …).

    A token mixes what its frames show; from the middle none is farther than four frames away. Granting the lines of
    its first and last frame too would save the 1.6 % of true matches that pans on the stage lose, and pass 60 % of the
    picture instead of 28 % where the camera sways.
    """
    ranges = token_frames(cameras.translation.shape[1])
    return cameras[:, [(frames[0] + frames[-1]) // 2 for frames in ranges]]


def background_tokens(foreground: Tensor) -> Tensor:
    """Pixels [B, T, H, W], nonzero where a person or an object is -> bool [B, t, h, w]: tokens that see none of it."""
    token_frames(foreground.shape[1])
    cells = (FRAMES_PER_LATENT * PATCH, SIZE_STEP, SIZE_STEP)
    # The VAE's first latent frame holds one frame; with three copies of it in front, all of them hold four.
    first = foreground[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1)
    return F.max_pool3d((torch.cat([first, foreground], dim=1) != 0).float(), cells) == 0
