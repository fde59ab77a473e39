"""What the tests of training share: toy sizes, and clips that need no stage.

A plugin that is also imported, which pytest would warn of: PYTEST_DONT_REWRITE
"""

import numpy as np
import pytest
import safetensors.torch
import torch
from animate_anywhere.training import checkpoint, configuration, networks, samples, supply, train, vae
from animate_anywhere.vision.geometry import Cameras

STAGES = tuple(networks.STAGES)
LADDER = ("base", "pose_control", "reference", "joint")  # AnimateAnywhere's, each on top of the one before
ALONE = ("pada_ln", "unified_tokens", "cross_attention")  # DynamiCtrl's
TINY = ("tiny-cpu", "tiny-gpu")
DYNAMICTRL = ("dynamictrl-tiny", "dynamictrl-5b")
TOY = (
    "model.heads=1", "model.blocks=5", "model.time_width=16", "model.text_width=24", "model.rank=4", "data.frames=13",
    "data.sizes=[[64, 48]]", "data.clips=6", "data.keep=false", "data.workers=0", "run.batch=2", "run.micro_batch=1",
    "run.sample_every=0", "run.log_every=1", "run.steps=4", "run.checkpoint_every=2", "optimiser.warmup=0",
    "loss.decoded=0", "loss.window_latents=0", "loss.queries=8",
)  # fmt: skip


def draw_sample(data: configuration.Data, number: int) -> samples.Sample:
    """What samples.draw_sample gives, without the stage: noise, and a camera that travels."""
    rng = np.random.default_rng(number)
    width, height = samples.size_of(data, number)

    def pictures(count: int, *channels: int) -> torch.Tensor:
        coarse = rng.integers(0, 256, (count, *channels, height // 16, width // 16), dtype=np.uint8)
        return torch.from_numpy(coarse.repeat(16, -1).repeat(16, -2)).movedim(1, -1).contiguous()

    size = data.frames
    intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]]).double()
    travel = torch.arange(size).double()[:, None] * torch.from_numpy(rng.normal(size=3))
    cameras = Cameras(intrinsics.expand(size, 3, 3), torch.eye(3).double().expand(size, 3, 3), travel)
    person = torch.zeros(size, height, width, dtype=torch.uint8)
    person[:, :16, :16] = 255
    return samples.Sample(
        number, pictures(size, 3), pictures(size, 3), pictures(1, 3), pictures(size, 3), pictures(1, 3), person,
        person // 2, cameras,
    )  # fmt: skip


@pytest.fixture
def quick_clips(monkeypatch):
    """Clips of noise in place of the stage's."""
    monkeypatch.setattr(supply, "draw_sample", draw_sample)


@pytest.fixture(scope="session")
def vae_file(tmp_path_factory):
    """TAEHV's layout, of which four channels in a layer are alive."""
    torch.manual_seed(0)
    small = vae.VAE(vae.Widths((4, 4, 4, 8), (1, 1, 1), (8, 4, 4, 4), (1, 1, 1)))
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in vae.embed(small).items()}
    safetensors.torch.save_file(state, path)
    return path


@pytest.fixture(scope="session")
def toy(vae_file):
    """toy(stage, *changes): a configuration of toy size."""

    def load(stage: str, *changes: str) -> configuration.Configuration:
        name = "dynamictrl-tiny" if stage in ALONE else "tiny-cpu"
        return configuration.load(name, stage, [*TOY, f"model.vae={vae_file}", *changes])

    return load


@pytest.fixture(scope="session")
def ladder(toy, tmp_path_factory):
    """A runs folder in which "toy" has been through base, pose_control and reference."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supply, "draw_sample", draw_sample)
        stages = [toy(stage, "run.steps=2") for stage in LADDER[:3]]
        assert train.train_all(stages, runs, "toy", False, train.Stops())
    return runs


@pytest.fixture
def joint(toy, ladder, tmp_path):
    """joint(*changes, resume=…, stage=…): a trainer of stage joint, or another, in a folder of its own."""
    base, before = (ladder / "toy" / stage for stage in ("base", "reference"))

    def make(*changes: str, name: str = "one", resume: bool = False, stage: str = "joint") -> train.Trainer:
        changed = toy(stage, f"model.base={base / checkpoint.BASE}", *changes)
        start = None if resume or stage in ALONE else before
        return train.Trainer(changed, tmp_path, name, resume, start)

    return make
