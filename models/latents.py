"""Frames and latent frames: valid lengths and sizes, layouts, and the way through the VAE. This arithmetic lives here
once.

CogVideoX codes 4 frames in one latent frame (the first frame alone in the first one), 8×8 pixels in one latent pixel,
and CogVideoX 1.5 pairs latent frames in its patch embedding. An odd number of latent frames would be padded circularly
by the host and spoil the last frames; so only lengths of 8k+5 frames are used.
"""

import torch
from comfy.taesd.taehv import TAEHV
from torch import Tensor

from .socket_type import wrong_type

CHANNELS = 16
FRAMES_PER_LATENT = 4
PIXELS_PER_LATENT = 8
PATCH = 2  # latent pixels, and latent frames, in one token
SIZE_STEP = PIXELS_PER_LATENT * PATCH
LENGTH_STEP = FRAMES_PER_LATENT * PATCH
SHORTEST = 5


def latent_frames(frames: int) -> int:
    """Latent frames of a clip of ``frames`` frames."""
    return (frames - 1) // FRAMES_PER_LATENT + 1


def frames_of(latents: int) -> int:
    """Frames of a clip of ``latents`` latent frames."""
    return (latents - 1) * FRAMES_PER_LATENT + 1


def valid_length(frames: int) -> int:
    """The longest length of 8k+5 frames that ``frames`` frames can fill.

    Raises ValueError below 5 frames.
    """
    if frames < SHORTEST:
        raise ValueError(f"length: a clip needs at least {SHORTEST} frames; there are {frames}. Choose more.")
    return (frames - SHORTEST) // LENGTH_STEP * LENGTH_STEP + SHORTEST


def fitting_length(frames: int) -> int:
    """The shortest length of 8k+5 frames that holds ``frames`` frames."""
    return SHORTEST + -(-max(0, frames - SHORTEST) // LENGTH_STEP) * LENGTH_STEP


def check_length(frames: int, name: str = "length") -> None:
    """Raise ValueError, in the ``name`` of the input and naming the next length that fits, unless it is 8k+5 frames."""
    if frames != fitting_length(frames):
        raise ValueError(
            f"{name}: {frames} frames do not fill CogVideoX 1.5's pairs of latent frames; 8k+5 do: 5, 13, 21, 29, … "
            f"Use {fitting_length(frames)}."
        )


def check_size(width: int, height: int) -> None:
    """Raise ValueError, naming the nearest sizes that fit, unless both are multiples of 16 pixels."""
    for name, value in (("width", width), ("height", height)):
        if value < SIZE_STEP or value % SIZE_STEP:
            nearest = max(SIZE_STEP, round(value / SIZE_STEP) * SIZE_STEP)
            raise ValueError(f"{name} must be a multiple of {SIZE_STEP} pixels; {value} is not. Nearest: {nearest}.")


def check_vae(vae) -> None:
    """Raise ValueError unless ``vae`` makes latents of 16 channels, 4 frames and 8×8 pixels."""
    if not hasattr(vae, "latent_channels") or not hasattr(vae, "first_stage_model"):
        raise wrong_type("vae", vae, "a VAE", "Connect Load VAE")
    if vae.latent_channels != CHANNELS or vae.latent_dim != 3:
        kind = "video" if vae.latent_dim == 3 else "picture"
        raise ValueError(
            f"vae: CogVideoX needs a video VAE with {CHANNELS} latent channels; this is a {kind} VAE with "
            f"{vae.latent_channels}. Load CogVideoX's own VAE, or aa_tiny_vae with the embedded default."
        )


def encode_frames(vae, frames: Tensor) -> Tensor:
    """Encode ``frames`` [T, H, W, 3] in 0…1 to latents [1, 16, t, H/8, W/8], in the VAE's own scale.

    The host pads TAEHV's input at its end; three copies of the first frame in front align it with CogVideoX's causal
    VAE instead (and with the three frames that the host trims after decoding).
    """
    if isinstance(vae.first_stage_model, TAEHV):
        frames = torch.cat([frames[:1].expand(FRAMES_PER_LATENT - 1, -1, -1, -1), frames])
    return vae.encode(frames[..., :3])


def decode_latents(vae, latents: Tensor) -> Tensor:
    """Decode ``latents`` [1, 16, t, h, w] to frames [4(t-1)+1, 8h, 8w, 3] in 0…1; any t, tiled or not."""
    frames = vae.decode(pad_for_decoding(vae.first_stage_model, latents))[0]  # [1, T, H, W, 3] -> [T, H, W, 3]
    return frames[: frames_of(latents.shape[2])].clamp(0, 1)


def pad_for_decoding(network: torch.nn.Module, latents: Tensor) -> Tensor:
    """``latents`` [B, 16, t, h, w] as the VAE ``network`` decodes them in step: the first 4(t-1)+1 frames of what it
    gives belong to them.

    CogVideoX's decoder gives the first latent frame one frame only where their number is odd. An even t becomes 4t
    frames, three too many at the start, and the host's tiled decoding fails on it. All valid lengths have an even t, so
    the last latent frame is repeated; the frames of the repetition come last. TAEHV needs nothing: the host trims it.
    """
    if isinstance(network, TAEHV) or latents.shape[2] % 2:
        return latents
    return torch.cat([latents, latents[:, :, -1:]], dim=2)


def first_frame_only(latents: Tensor, count: int) -> Tensor:
    """``latents`` [1, 16, 1, h, w] of a still picture, followed by zeros up to ``count`` latent frames: how
    CogVideoX-I2V wants its start picture."""
    return torch.nn.functional.pad(latents[:, :, :1], (0, 0, 0, 0, 0, count - 1))
