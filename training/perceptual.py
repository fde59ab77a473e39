"""The perceptual loss (AnimateAnywhere III-D, eq. 6), hands twice, and what it looks through.

Shapes: B clips of T frames of H×W px.
"""

import logging
from collections.abc import Callable
from itertools import pairwise

import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BELOW = 300  # of 1000 timesteps: the last 30 % of denoising, where one step from x_t shows a picture

log = logging.getLogger(__name__)


class VGGFeatures(nn.Module):
    """What VGG16 or VGG19 sees: the ReLU before each of its first four poolings (relu1_2, relu2_2, relu3_3, relu4_3).

    state: torchvision's keys, ``features.N.weight`` and ``.bias``. Raises ValueError when it is no VGG.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        places = sorted(int(key.split(".")[1]) for key in state if key.startswith("features.") and ".weight" in key)
        # A ReLU follows each convolution; where the next one comes a place later still, a pooling is between.
        ends = [i for i, (here, after) in enumerate(pairwise(places), 1) if after - here == 3]
        if len(ends) < 4 or any(state[f"features.{place}.weight"].ndim != 4 for place in places):
            raise ValueError(f"expected VGG16 or VGG19 without batch normalisation; found {len(places)} layers.")
        self.ends = ends[:4]
        for i, place in enumerate(places[: self.ends[-1]]):
            self.register_buffer(f"weight{i}", state[f"features.{place}.weight"].float())
            self.register_buffer(f"bias{i}", state[f"features.{place}.bias"].float())
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[N, 3, H, W] in 0…1 -> four of [N, C, H', W']."""
        x, seen = (frames - self.mean) / self.std, []
        for i in range(self.ends[-1]):
            x = F.relu(F.conv2d(x, getattr(self, f"weight{i}"), getattr(self, f"bias{i}"), padding=1))
            if i + 1 in self.ends:
                seen.append(x)
                x = F.max_pool2d(x, 2)
        return seen


class EdgePyramid(nn.Module):
    """Stands in for VGG where its weights are not given: colours and their slopes (Sobel, 1 at a step from black to
    white) at four sizes, each half the one before. Nothing is learned: it sees blurred contours, not what they show."""

    def __init__(self) -> None:
        super().__init__()
        slope = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
        self.register_buffer("slopes", torch.stack([slope, slope.T])[:, None].repeat(3, 1, 1, 1))  # [6, 1, 3, 3]

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[N, 3, H, W] in 0…1 -> four of [N, 9, H', W']."""
        seen = []
        for _ in range(4):
            edges = F.conv2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), self.slopes, groups=3)
            seen.append(torch.cat([frames, edges], dim=1))
            frames = F.avg_pool2d(frames, 2, ceil_mode=True)
        return seen


def load_features(vgg: str | None) -> nn.Module:
    """VGG from a file of torchvision's weights (.pth or .safetensors), or the stand-in when ``vgg`` is None."""
    if vgg is None:
        log.warning("Perceptual loss: no VGG weights given, so it compares colours and edges at four sizes instead.")
        return EdgePyramid()
    try:
        features = VGGFeatures(comfy.utils.load_torch_file(str(vgg), safe_load=True))
    except ValueError as error:
        raise ValueError(f"vgg: {vgg}: {error}") from error
    log.info("Perceptual loss: VGG from %s.", vgg)
    return features


def perceptual_loss(
    features: Callable, decode: Callable, predicted: Tensor, frames: Tensor, hands: Tensor, timestep: Tensor
) -> Tensor:
    """(1 + m)·VGG(V̂, V) of the clips whose timestep is below BELOW, a scalar (eq. 6).

    The distance is the mean |difference| of the features, of each size with equal weight; m is averaged down to it. It
    is divided by all clips, so that 30 % of the timesteps weigh the same in a batch of one and of eight.
    features: VGGFeatures or EdgePyramid. decode: from x̂0 [b, 16, t, h, w], with gradients, to frames [b, T, H, W, 3] in
    0…1. predicted: x̂0 of one_step. frames: [B, T, H, W, 3] in 0…1; hands: [B, T, H, W], 1 on hands. timestep: [B].
    Only the clips that count are decoded.
    """
    chosen = (timestep < BELOW).nonzero()[:, 0].to(predicted.device)
    if not len(chosen):
        return predicted.new_zeros(())
    decoded, truth = decode(predicted[chosen]), frames[chosen]
    if decoded.shape != truth.shape or hands.shape != frames.shape[:-1]:
        raise ValueError(
            f"frames: decoded they are {tuple(decoded.shape)}; expected {tuple(truth.shape)}, and hands of the same "
            f"frames, not {tuple(hands.shape)}."
        )
    pictures = [video.flatten(0, 1).movedim(-1, 1).float() for video in (decoded, truth)]  # [b·T, 3, H, W]
    weight = 1 + hands[chosen].flatten(0, 1)[:, None].to(decoded)  # [b·T, 1, H, W]
    levels = [
        (F.adaptive_avg_pool2d(weight, ours.shape[-2:]) * (ours - theirs).abs()).mean()
        for ours, theirs in zip(*map(features, pictures))
    ]
    return torch.stack(levels).mean() * len(chosen) / len(predicted)
