"""Sample sheets: held-out clips through the sampler that the graph uses, beside the truth, as one picture."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor

from ..models import sampler
from .autoencoder import Autoencoder
from .encoded import Encoded
from .networks import Family
from .objective import noise_schedule

COLUMNS = 5  # frames of a clip


@dataclass
class Guider:
    """What the host's guider is to a sampler: x0 from the networks, with guidance on pose and character together.

    Where both branches have the pose (DynamiCtrl) they are one: what differs is the text, and training has none.
    """

    family: Family
    batch: Encoded
    starts: tuple[str, ...]  # [B], as Encoded.start takes them
    guidance: float
    autocast: bool = False

    def __post_init__(self) -> None:
        dtype = self.family.dtype
        self.model_sampling = noise_schedule()
        self.start = self.batch.start(self.starts).to(dtype)
        self.conditions = {"pose": self.batch.pose.to(dtype), "character": self.batch.character.to(dtype)}

    @property
    def inner_model(self) -> "Guider":
        return self

    def __call__(self, x: Tensor, sigma: Tensor, **_) -> Tensor:
        """x: [B, 16, t, h, w] in alpha space; sigma: [B]."""
        timestep = self.model_sampling.timestep(sigma.cpu()).float().to(x.device)

        def x0(**conditions: Tensor) -> Tensor:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
                velocity = self.family(x.to(self.family.dtype), timestep, self.start, **conditions)
            return self.model_sampling.calculate_denoised(sigma.to(x), velocity.float(), x)

        guided = x0(**self.conditions)
        if self.guidance == 1 or self.family.pose_network is None or self.family.joint_text:
            return guided
        return torch.lerp(x0(), guided, self.guidance)


@torch.no_grad()
def sample(guider: Guider, steps: int, seed: int = 0, noise: Tensor | None = None, method: str = "ddim") -> Tensor:
    """Latents [B, 16, t, h, w], in the model's scale, from ``noise`` or, without it, from that of ``seed``."""
    video = guider.batch.video
    if noise is None:
        noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(seed))
    sigmas = sampler.trailing_sigmas(guider.model_sampling, steps)
    chosen = sampler.CogVideoXSampler(method)
    return chosen.sample(guider, sigmas, {"seed": seed}, None, noise.to(video.device), disable_pbar=True)


@torch.no_grad()
def draw(vae: Autoencoder, batch: Encoded, starts: tuple[str, ...], sampled: Tensor, path: Path) -> None:
    """A PNG: for each clip a row of the truth (as the VAE gives it), one of its pose and one of what was sampled; each
    begins with what the model was shown: the start, the character, and the start again."""
    start = vae.decode(batch.start(starts).float()[:, :, :1])[:, 0]
    character = vae.decode(batch.character.float())[:, 0]
    rows = []
    for latents, shown in ((batch.video, start), (batch.pose, character), (sampled, start)):
        frames = vae.decode(latents.float())  # [B, T, H, W, 3]
        index = torch.linspace(0, frames.shape[1] - 1, COLUMNS).round().long()
        rows.append(torch.cat([shown[:, None], frames[:, index]], dim=1))  # [B, 1 + COLUMNS, H, W, 3]
    sheet = torch.stack(rows, dim=1)  # [B, 3, 1 + COLUMNS, H, W, 3]
    picture = sheet.permute(0, 1, 3, 2, 4, 5).flatten(0, 2).flatten(1, 2)  # [B·3·H, (1 + COLUMNS)·W, 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    if not cv2.imwrite(str(path), pixels[..., ::-1]):
        raise OSError(f"{path} could not be written.")
