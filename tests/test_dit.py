"""The block loop against the host's own forward, and the host's forward against diffusers."""

import pytest
import torch
import toys
from animate_anywhere.models import dit, shards
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from diffusers import CogVideoXTransformer3DModel as Diffusers

SIZES = pytest.mark.parametrize(("height", "width"), [(8, 4), (4, 8), (6, 6)], ids=["portrait", "landscape", "square"])


def stock() -> CogVideoXTransformer3DModel:
    return toys.cogvideox_patcher().model.diffusion_model


@SIZES
@pytest.mark.parametrize("batch", [1, 2])
def test_loop_without_conditions_equals_the_stock_forward_to_the_bit(height, width, batch):
    network, given = stock(), toys.inputs(height=height, width=width, batch=batch)
    with torch.no_grad():
        assert torch.equal(dit.forward(network, **given), network(**given))


def test_loop_equals_the_stock_forward_where_the_host_pads():
    network, given = stock(), toys.inputs(frames=3, height=5, width=7)
    with torch.no_grad():
        assert torch.equal(dit.forward(network, **given), network(**given))


@SIZES
def test_stock_forward_equals_diffusers(height, width):
    """1e-5: both are float32 and differ in the order of their sums only."""
    network, given = stock(), toys.inputs(frames=4, height=height, width=width)
    config = toys.CONFIG
    other = Diffusers(
        **{key: config[key] for key in ("num_attention_heads", "attention_head_dim", "in_channels", "out_channels")},
        **{key: config[key] for key in ("time_embed_dim", "ofs_embed_dim", "text_embed_dim", "num_layers")},
        patch_size=2,
        patch_size_t=2,
        use_rotary_positional_embeddings=True,
    ).eval()
    weights = network.state_dict()
    other.load_state_dict({key: weights[shards.native_key(key)] for key in other.state_dict()})
    rope = dit.rope_at(network, torch.arange(2), height // 2, width // 2)
    with torch.no_grad():
        expected = other(
            hidden_states=given["x"].movedim(1, 2),
            encoder_hidden_states=given["context"],
            timestep=given["timestep"],
            ofs=given["ofs"],
            image_rotary_emb=rope,
        ).sample.movedim(2, 1)
        actual = network(**given)
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_rope_equals_the_hosts_and_goes_on_before_the_clip():
    network = stock()
    ours, hosts = dit.rope_at(network, torch.arange(3), 4, 5), network._get_rotary_emb(4, 5, 3, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(ours, hosts))
    cos, sin = dit.rope_at(network, torch.tensor([-1, 1]), 4, 5)
    temporal = network.attention_head_dim // 4
    assert torch.equal(cos[:20], cos[20:])  # a rotation by -1 and by 1: same cosine, opposite sine
    assert torch.equal(sin[:20, :temporal], -sin[20:, :temporal])


def test_an_empty_prompt_is_as_long_as_those_of_training():
    assert dit.no_text(4096).shape == (1, 226, 4096)  # T5-XXL's
    assert dit.no_text(24).shape == (1, 16, 24)
    assert not dit.no_text(24).any()


def test_patchify_equals_the_hosts_patch_embedding():
    network, x = stock(), toys.inputs()["x"]
    embed = network.patch_embed
    hosts = embed(torch.zeros(1, 1, toys.CONFIG["text_embed_dim"]), x.movedim(1, 2))[:, 1:]
    assert torch.equal(embed.proj(dit.patchify(x)), hosts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch_size_t": None, "ofs_embed_dim": None}, "1.0 or 2B"),
        ({"in_channels": 16}, "image-to-video"),
    ],
)
def test_other_cogvideox_models_are_told_apart(change, says):
    with pytest.raises(ValueError, match=says):
        dit.check_base(toys.cogvideox_patcher(**change))


def test_cogvideox_1_5_image_to_video_is_accepted():
    dit.check_base(toys.cogvideox_patcher())
