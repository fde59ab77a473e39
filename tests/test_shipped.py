"""The weights that ship do what weights/README.md says, with room for chance and for weights that are trained on.

Clips are held-out ones of the stage: no training has seen them.
"""

import comfy.sd
import comfy.utils
import pytest
import torch
from animate_anywhere.models import latents
from animate_anywhere.models.checkpoint import Base
from animate_anywhere.training import configuration, evaluate, figures, samples, vae_samples, vae_training
from animate_anywhere.training.autoencoder import Autoencoder
from animate_anywhere.vision import metrics

WEIGHTS = configuration.ROOT / "weights"
VAE = WEIGHTS / "vae" / "aa_tiny_vae.safetensors"
BASE = WEIGHTS / "diffusion_models" / "aa_tiny_base.safetensors"
ADAPTER = WEIGHTS / "animate_anywhere" / "aa_tiny_adapter.safetensors"
OTHERS = ("blazepose",)  # as Google published it


@pytest.fixture(scope="module")
def coded():
    """Two clips [T, H, W, 3] with their latents and what comes back, through the host's own loader."""
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE)))
    found = []
    with torch.inference_mode():
        for number in samples.held_out_numbers(configuration.load("tiny-cpu", "base").data, 2):
            frames = vae_samples.draw_material(number, 29, (128, 128)).frames.float() / 255
            latent = latents.encode_frames(vae, frames)
            found.append((frames, latent, latents.decode_latents(vae, latent)))
    return found


def test_the_vae_gives_back_what_it_was_given(coded):
    """In the mean of 20 clips 29.5 dB; the goal is 26, and the worst of the 20 has that."""
    for frames, _, back in coded:
        assert metrics.psnr(back, frames) > 26


def test_the_vae_s_latents_have_the_variance_that_the_host_takes_them_for(coded):
    """Of two clips: 20 have 1.05, single ones 0.93 to 1.3."""
    values = torch.cat([latent.flatten() for _, latent, _ in coded])
    assert (values * vae_training.SCALE).var().item() == pytest.approx(1, abs=0.15)


@pytest.fixture(scope="module")
def measured():
    """The figures of the family, by name: four short clips, eight steps."""
    family = evaluate.load_family(BASE, ADAPTER, torch.device("cpu"))
    vae = Autoencoder(VAE, Base.of(family.base), torch.device("cpu"))
    conditions = ("pose", "wrong pose", "wrong reference")
    options = evaluate.Options(4, steps=8, guidance=1, frames=13, batch=4, conditions=conditions, attention=False)
    clips = list(evaluate.Evaluation(family, vae, options).clips())
    return {figure.name: figure.value for figure in figures.figures_of(clips)}


@pytest.mark.parametrize(
    ("figure", "least"),
    [
        ("person above the empty background, dB", 1.5),
        ("a wrong pose costs, dB", 0.5),
        ("a wrong reference costs, dB", 0.5),
    ],
)
def test_the_family_draws_the_person_it_is_shown_as_the_pose_says(measured, figure, least):
    """Of 3.5, 1.9 and 2.3 dB; an untrained adapter has 1.0, 0 and 0.1 on these clips, one of noise 0.1, 0.1 and 0."""
    assert measured[figure] > least


def test_what_was_trained_here_takes_at_most_45_mib():
    """Base, adapter, VAE and motion head; BlazePose's 11.5 MiB are not counted."""
    files = [path for path in WEIGHTS.rglob("*.safetensors") if path.parent.name not in OTHERS]
    assert len(files) >= 4
    assert sum(path.stat().st_size for path in files) <= 45 * 2**20
