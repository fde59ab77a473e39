"""The adapter nodes in whole sampling runs with the host's own sampler nodes."""

import asyncio

import comfy.sample
import comfy.samplers
import folder_paths
import pytest
import torch
import toys
from animate_anywhere.models import attach, checkpoint, reference
from animate_anywhere.models.sampler import CogVideoXSampler
from animate_anywhere.nodes import adapter as nodes
from comfy_extras import nodes_easycache

FRAMES, HEIGHT, WIDTH = 2, 4, 8


@pytest.fixture
def model():
    return toys.cogvideox_patcher()


@pytest.fixture
def adapter(tmp_path, model):
    network = model.model.diffusion_model
    path = tmp_path / "adapter.safetensors"
    checkpoint.save(path, checkpoint.Base.of(network), checkpoint.fresh(network, rank=4, dtype=torch.float32))
    loaded = checkpoint.load(path)
    for output in loaded.pose_control.model.outputs:
        torch.nn.init.normal_(output.weight, std=0.1)
    return loaded


def conditioning(adapter):
    text = torch.zeros(1, 5, toys.CONFIG["text_embed_dim"])
    character = attach.encode_reference(adapter, torch.randn(1, 16, 1, HEIGHT, WIDTH))
    start = {"concat_latent_image": torch.randn(1, 16, FRAMES, HEIGHT, WIDTH)}
    pose = torch.randn(1, 16, FRAMES, HEIGHT, WIDTH)
    return [[text, {**start, "aa_pose": pose, "aa_reference": character}]], [[text, start]]


def sample(model, positive, negative, seed=0, steps=3, cfg=2.5):
    latent = torch.zeros(1, 16, FRAMES, HEIGHT, WIDTH)
    noise = comfy.sample.prepare_noise(latent, seed)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    sampler = CogVideoXSampler("ddim")
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, latent, disable_pbar=True, seed=seed
    )


def counter(module):
    calls = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_with_guidance_the_pose_control_runs_once_a_step(model, adapter):
    patched = attach.attach(model, adapter)
    positive, negative = conditioning(adapter)
    control = counter(adapter.pose_control.model.blocks[0])
    base = counter(model.model.diffusion_model.blocks[0])
    sample(patched, positive, negative, steps=3)
    assert (len(control), len(base)) == (3, 6)


def test_the_reference_network_runs_once_and_not_again_for_a_second_seed(model, adapter):
    runs = counter(adapter.reference.model.blocks[0])
    patched = attach.attach(model, adapter)
    positive, negative = conditioning(adapter)
    first, second = (sample(patched, positive, negative, seed=seed) for seed in (0, 1))
    assert len(runs) == 1
    assert not torch.equal(first, second)


def test_the_same_seed_gives_the_same_bytes(model, adapter):
    patched = attach.attach(model, adapter)
    positive, negative = conditioning(adapter)
    assert torch.equal(sample(patched, positive, negative), sample(patched, positive, negative))


@pytest.mark.parametrize("adapter_first", [True, False], ids=["adapter, EasyCache", "EasyCache, adapter"])
def test_easycache_skips_steps_in_either_order(model, adapter, adapter_first):
    """A threshold so high that it skips whatever it may: steps in the middle, not the first and last ones."""

    def cached(model):
        return nodes_easycache.EasyCacheNode.execute(
            model, reuse_threshold=1e6, start_percent=0.0, end_percent=1.0, verbose=False
        ).args[0]

    patched = cached(attach.attach(model, adapter)) if adapter_first else attach.attach(cached(model), adapter)
    positive, negative = conditioning(adapter)
    runs = counter(adapter.pose_control.model.blocks[0])
    output = sample(patched, positive, negative, steps=8)
    assert 0 < len(runs) < 8
    assert output.isfinite().all()


def test_the_nodes_hand_over_what_the_models_floor_computes(model, adapter, monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: str(tmp_path / name))
    loaded = nodes.LoadAdapter.execute("adapter.safetensors").args[0]
    assert loaded.header == adapter.header
    patched = nodes.ApplyAdapter.execute(model, loaded, 0.5, 1.0, 0.0).args[0]
    assert attach.control_of(patched).pose_strength == 0.5 and not patched.patches
    encoded = nodes.EncodeReference.execute(loaded, toys.taehv_vae(), torch.rand(2, 40, 64, 3)).args[0]
    assert encoded.grid == (2, 4) and encoded.width == 128  # 40 px is no multiple of 16: 32 px, 2 tokens


def test_reading_a_character_with_a_picture_vae_is_refused_before_anything_runs(adapter):
    vae = toys.taehv_vae()
    vae.latent_channels = 4
    with pytest.raises(ValueError, match="16 latent channels; this is a video VAE with 4"):
        nodes.EncodeReference.execute(adapter, vae, torch.rand(1, 32, 32, 3))


def test_an_adapter_without_reference_network_says_what_it_has(tmp_path, model, adapter):
    header, groups = checkpoint.read(tmp_path / "adapter.safetensors")
    checkpoint.save(tmp_path / "pose.safetensors", header.base, {"pose_control": groups["pose_control"]})
    with pytest.raises(ValueError, match="its groups: pose_control"):
        nodes.EncodeReference.execute(
            checkpoint.load(tmp_path / "pose.safetensors"), toys.taehv_vae(), torch.rand(1, 32, 32, 3)
        )


def test_the_hosts_loaders_find_the_embedded_default():
    import sys

    extension = asyncio.run(sys.modules["animate_anywhere"].comfy_entrypoint())
    asyncio.run(extension.on_load())
    for folder, name in (
        ("diffusion_models", "aa_tiny_base.safetensors"),
        ("vae", "aa_tiny_vae.safetensors"),
        ("animate_anywhere", "aa_tiny_adapter.safetensors"),
    ):
        assert name in folder_paths.get_filename_list(folder)


class TestPreparingTheCharacter:
    def test_the_whole_picture_is_kept_and_the_rest_is_grey(self):
        white = torch.ones(1, 100, 50, 3)
        fitted = reference.prepare_character(white, None, 64, 64)
        assert fitted.shape == (1, 64, 64, 3)
        assert (fitted[:, :, :16] == reference.GREY).all() and (fitted[:, :, 16:48] == 1).all()

    def test_what_lies_outside_the_mask_is_grey(self):
        mask = torch.zeros(2, 32, 32)  # of a video; the first one counts, as of the pictures
        mask[0, :16] = 1
        prepared = reference.prepare_character(torch.ones(1, 32, 32, 3), mask)
        assert (prepared[:, :16] == 1).all()
        assert (prepared[:, 16:] - reference.GREY).abs().max() < 1 / 255  # the host resizes in 8 bits

    def test_a_large_photograph_is_made_smaller(self):
        prepared = reference.prepare_character(torch.rand(1, 3000, 4000, 3), None)
        height, width = prepared.shape[1:3]
        assert height * width <= 1.02 * reference.LARGEST and height % 16 == width % 16 == 0
        assert abs(width / height - 4 / 3) < 0.02

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"character": torch.rand(0, 32, 32, 3)}, "character: expected a picture"),
            ({"mask": torch.ones(1, 16, 32)}, "mask: it is 32×16 px"),
            ({"width": 64, "height": 0}, "give both"),
            ({"width": 60, "height": 64}, "width must be a multiple of 16.*Nearest: 64"),
        ],
    )
    def test_bad_input(self, arguments, says):
        given = {"character": torch.rand(1, 32, 32, 3), "mask": None, **arguments}
        with pytest.raises(ValueError, match=says):
            reference.prepare_character(**given)
