"""What sampling has come to so far, as a small picture: colours by a linear map from latents, fitted to the VAE in use.

The host has such maps as constants for many latents and none for CogVideoX. Those in circulation were found by drawing
random numbers; a fit takes one small clip through the VAE and suits each of them, the embedded default's, too.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from . import latents

SIDE = 256  # px, the longer side of the pictures that are fitted to
RIDGE = 1e-3  # of the mean power of a channel: keeps channels out that say nothing of colours
CHART = 0.1  # of a picture's weight: enough to tell what the pictures do not, too little to be their equal
SHOWN = 4  # latent frames, spread over the clip
LEAST = 128  # px, the shorter side of what is shown


class Colours(NamedTuple):
    """rgb = latent @ weight + bias, in 0…1, for latents in the VAE's own scale: weight [16, 3], bias [3]."""

    weight: Tensor
    bias: Tensor


def fit(vae, pictures: Tensor) -> Colours:
    """The map that is nearest to ``vae`` on ``pictures`` [n, H, W, 3] in 0…1 and on a chart of many colours, by least
    squares."""
    known, wanted, weights = [], [], []
    counts = [(_small(picture), 1.0) for picture in pictures] + [(_chart(), CHART)]
    for picture, count in counts:
        # Held for five frames: the first latent frame codes one of them, all others four.
        clip = picture[None].expand(latents.SHORTEST, -1, -1, -1)
        coded = latents.encode_frames(vae, clip)[0].float().cpu()  # [16, t, h, w]
        pixels = functional.avg_pool2d(picture.movedim(-1, 0), latents.PIXELS_PER_LATENT)  # [3, h, w]
        known.append(coded.flatten(1).T)
        wanted.append(pixels.flatten(1).T.cpu().repeat(coded.shape[1], 1))
        weights.append(torch.full((len(known[-1]), 1), count / len(known[-1])))
    x, y, w = (torch.cat(parts).double() for parts in (known, wanted, weights))
    middle, mean = (w * x).sum(0) / w.sum(), (w * y).sum(0) / w.sum()
    x, y = x - middle, y - mean
    gram = x.T @ (w * x)
    weight = torch.linalg.solve(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).double(), x.T @ (w * y))
    return Colours(weight.float(), (mean - middle @ weight).float())


def picture(colours: Colours, samples: Tensor) -> Tensor:
    """``samples`` [1, 16, t, h, w] in the VAE's own scale -> frames from start to end, row by row, as one picture
    [H, W, 3] in 0…1."""
    count = min(SHOWN, samples.shape[2])
    frames = samples[0, :, torch.linspace(0, samples.shape[2] - 1, count).round().long()].float().cpu()  # [16, n, h, w]
    rgb = (frames.movedim(0, -1) @ colours.weight + colours.bias).clamp(0, 1)  # [n, h, w, 3]
    columns = 2 if count == SHOWN else count
    rows = [torch.cat(tuple(rgb[start : start + columns]), dim=1) for start in range(0, count, columns)]
    sheet = torch.cat(rows)
    scale = -(-LEAST // min(sheet.shape[:2]))
    return sheet.repeat_interleave(scale, 0).repeat_interleave(scale, 1)


def _small(picture: Tensor) -> Tensor:
    """[H, W, 3] with sides that the VAE takes, SIDE px at most."""
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = [max(1, round(side * scale / latents.SIZE_STEP)) * latents.SIZE_STEP for side in (height, width)]
    return functional.interpolate(picture[None].movedim(-1, 1), size, mode="area")[0].movedim(0, -1)


def _chart() -> Tensor:
    """Patches of many colours, sharp on one half and soft on the other: [SIDE, SIDE, 3], always the same."""
    colours = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sharp, soft = (functional.interpolate(colours, SIDE, mode=mode)[0] for mode in ("nearest", "bilinear"))
    return torch.cat([sharp[:, : SIDE // 2], soft[:, SIDE // 2 :]], dim=1).movedim(0, -1)
