"""LoRA as people publish them for CogVideoX: the same change of the weights in whatever names they come."""

import json

import comfy.lora
import comfy.sd
import convert
import pytest
import render_toys
import torch
import toys
from animate_anywhere.models import attach, lora_keys
from animate_anywhere.models.shards import diffusers_key
from safetensors.torch import load_file, save_file

RANK = 4
LAYERS = [
    *[f"blocks.{block}.{name}" for block in (0, 3) for name in lora_keys.IN_BLOCK],
    *lora_keys.AROUND,
]


@pytest.fixture(scope="module")
def weights():
    return toys.cogvideox_state()


@pytest.fixture(scope="module")
def matrices(weights):
    """{layer in the host's names: (A [rank, in], B [out, rank])}"""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for layer in LAYERS:
        out, into = weights[f"{layer}.weight"].shape
        found[layer] = torch.randn(RANK, into, generator=generator), torch.randn(out, RANK, generator=generator)
    return found


def theirs(layer):
    return diffusers_key(f"{layer}.").removesuffix(".")


NAMES = {
    "diffusers": lambda layer: f"transformer.{theirs(layer)}",
    "finetrainers": theirs,
    "peft": lambda layer: f"base_model.model.{theirs(layer)}",
    "peft in diffusers": lambda layer: f"transformer.base_model.model.{theirs(layer)}",
    "the host": lambda layer: f"diffusion_model.{layer}",
    "CogVideoX-Fun": lambda layer: f"lora_unet__{theirs(layer).replace('.', '_')}",
    "kohya": lambda layer: f"lora_unet_{theirs(layer).replace('.', '_')}",
    "OneTrainer": lambda layer: f"lora_transformer_{theirs(layer).replace('.', '_')}",
}
ENDS = [
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
]


def published(matrices, name=NAMES["diffusers"], ends=ENDS[0], alpha=None):
    state = {}
    for layer, (down, up) in matrices.items():
        state |= {f"{name(layer)}{ends[0]}": down, f"{name(layer)}{ends[1]}": up}
        if alpha is not None:
            state[f"{name(layer)}.alpha"] = torch.tensor(alpha)
    return state


def loaded(state, folder):
    """The weights of the toy model with the LoRA of a file, through the host's own loader."""
    save_file(state, folder / "published.safetensors")
    convert.lora(folder / "published.safetensors", folder / "lora.safetensors")
    model = comfy.sd.load_lora_for_models(
        toys.cogvideox_patcher(), None, load_file(folder / "lora.safetensors"), 1.0, 0.0
    )[0]
    return {key: model.patch_weight_to_device(f"diffusion_model.{key}", return_weight=True) for key in model_keys()}


def model_keys():
    return [f"{layer}.weight" for layer in LAYERS]


def check_merged(found, weights, matrices, scale=1.0):
    for layer, (down, up) in matrices.items():
        torch.testing.assert_close(found[f"{layer}.weight"], weights[f"{layer}.weight"] + scale * up @ down)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ends", ENDS)
def test_every_way_to_name_them_becomes_the_hosts_names(matrices, name, ends):
    converted = lora_keys.convert(published(matrices, NAMES[name], ends))
    assert converted.layers == len(LAYERS) and converted.ranks == (RANK,)
    for layer, (down, up) in matrices.items():
        assert torch.equal(converted.tensors[f"diffusion_model.{layer}.lora_A.weight"], down)
        assert torch.equal(converted.tensors[f"diffusion_model.{layer}.lora_B.weight"], up)


def test_the_host_reads_none_of_diffusers_names(matrices):
    """Why there is something to convert. Once it does, this file can go."""
    keys = comfy.lora.model_lora_keys_unet(toys.cogvideox_patcher().model, {})
    assert not comfy.lora.load_lora(published(matrices), keys, log_missing=False)


def test_the_hosts_loader_changes_the_weights_as_they_are_merged_by_hand(tmp_path, weights, matrices):
    check_merged(loaded(published(matrices), tmp_path), weights, matrices)


def test_the_alpha_of_a_layer_is_kept(tmp_path, weights, matrices):
    check_merged(loaded(published(matrices, alpha=2.0), tmp_path), weights, matrices, scale=2.0 / RANK)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": RANK, "lora_alpha": 8}, 2.0),
        ({"r": RANK, "lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"r": RANK, "lora_alpha": 1, "alpha_pattern": {}}, 0.25),
        ({"r": RANK, "lora_alpha": None}, 1.0),
    ],
)
def test_the_scale_of_pefts_configuration_is_kept(tmp_path, weights, matrices, config, scale):
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    check_merged(loaded(published(matrices), tmp_path), weights, matrices, scale)


def test_the_scale_in_the_header_of_diffusers_is_kept(tmp_path, matrices):
    metadata = {lora_keys.METADATA: json.dumps({"transformer.lora_alpha": 8, "transformer.r": RANK})}
    save_file(published(matrices), tmp_path / "published.safetensors", metadata=metadata)
    convert.lora(tmp_path / "published.safetensors", tmp_path / "lora.safetensors")
    alphas = {float(value) for key, value in load_file(tmp_path / "lora.safetensors").items() if key.endswith("alpha")}
    assert alphas == {8.0}


def test_a_layer_with_an_alpha_of_its_own_keeps_it(matrices):
    config = {"lora_alpha": 4, "alpha_pattern": {"to_q": 16, "transformer_blocks.0.attn1.to_k": 32}}
    tensors = lora_keys.convert(published(matrices), config).tensors
    alphas = {key.split("diffusion_model.")[1]: float(value) for key, value in tensors.items() if key.endswith("alpha")}
    assert alphas["blocks.3.q.alpha"] == 16 and alphas["blocks.0.k.alpha"] == 32 and alphas["blocks.3.k.alpha"] == 4


def test_a_video_with_it_is_the_one_of_weights_merged_by_hand(tmp_path, weights, matrices):
    save_file(published(matrices), tmp_path / "published.safetensors")
    convert.lora(tmp_path / "published.safetensors", tmp_path / "lora.safetensors")
    lora = load_file(tmp_path / "lora.safetensors")
    patched = comfy.sd.load_lora_for_models(toys.cogvideox_patcher(), None, lora, 0.1, 0.0)[0]
    merged = dict(weights)
    for layer, (down, up) in matrices.items():
        merged[f"{layer}.weight"] = weights[f"{layer}.weight"] + 0.1 * up @ down
    by_hand = comfy.sd.load_diffusion_model_state_dict(merged, model_options={"dtype": torch.float32})
    one, other, plain = (sampled(model) for model in (patched, by_hand, toys.cogvideox_patcher()))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert (one - plain).abs().max() > 0.1


def sampled(model):
    toy = render_toys.make(5)
    with torch.inference_mode():
        patched = attach.attach(model, toy.adapter)
        return render_toys.sample(toy._replace(model=patched))


# --- what is no LoRA for CogVideoX


@pytest.mark.parametrize(
    "state",
    [
        {},
        {
            "blocks.0.self_attn.q.lora_A.weight": torch.zeros(4, 8),
            "blocks.0.self_attn.q.lora_B.weight": torch.zeros(8, 4),
        },
        {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 8)},
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 8)},
        {"text_encoder.layers.0.q.lora_A.weight": torch.zeros(4, 8)},
        {"transformer_blocks.0.attn1.to_q.weight": torch.zeros(8, 8)},
        {"transformer_blocks.0.attn1.to_q.hada_w1_a": torch.zeros(8, 8)},
    ],
)
def test_what_has_no_place_in_cogvideox_is_refused(tmp_path, state):
    save_file(state, tmp_path / "published.safetensors")
    with pytest.raises(ValueError, match=r"^published\.safetensors: [0-9]+ of [0-9]+ keys have no place in CogVideoX"):
        convert.lora(tmp_path / "published.safetensors", tmp_path / "lora.safetensors")
    assert not (tmp_path / "lora.safetensors").exists()


def test_a_lora_that_fits_in_part_is_refused(matrices):
    state = published(matrices) | {"transformer.other.lora_A.weight": torch.zeros(4, 8)}
    with pytest.raises(ValueError, match="1 of .* keys have no place in CogVideoX, among them 'transformer.other.lora"):
        lora_keys.convert(state)


Q = "transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({f"{Q}.lora_A.weight": torch.zeros(4, 8)}, "only one of its two"),
        ({f"{Q}.lora_A.weight": torch.zeros(4, 8), f"{Q}.lora_B.weight": torch.zeros(8, 5)}, "4×8 and 8×5"),
        ({f"{Q}.lora_A.weight": torch.zeros(8), f"{Q}.lora_B.weight": torch.zeros(8)}, "8 and 8"),
        ({f"{Q}.lora_A.weight": torch.full((4, 8), torch.nan), f"{Q}.lora_B.weight": torch.zeros(8, 4)}, "not finite"),
    ],
)
def test_matrices_that_do_not_belong_together_are_refused(state, told):
    with pytest.raises(ValueError, match=f"blocks.0.q (has|holds) .*{told}"):
        lora_keys.convert(state)


def test_keys_of_text_encoders_are_left_out_and_told(matrices):
    state = published(matrices) | {"lora_te_encoder_block_0.lora_down.weight": torch.zeros(4, 8)}
    converted = lora_keys.convert(state)
    assert str(converted) == f"{len(LAYERS)} layers of rank 4; 1 keys of text encoders were left out"


def test_a_file_that_is_cut_off_is_one_error(tmp_path, matrices):
    path = tmp_path / "published.safetensors"
    save_file(published(matrices), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"^published\.safetensors is not a whole safetensors file"):
        convert.lora(path, tmp_path / "lora.safetensors")


# --- one that has no effect is told


@pytest.fixture(scope="module")
def toy():
    with torch.inference_mode():
        return render_toys.make(5)


def with_lora(model, state):
    """As the host's Load LoRA does it."""
    return comfy.sd.load_lora_for_models(model, None, state, 1.0, 0.0, lora_metadata={"format": "pt"})[0]


NO_EFFECT = r"^model: the LoRA loaded into it changes nothing.* scripts/convert\.py lora"


def test_a_lora_without_effect_is_told_when_the_adapter_is_applied(toy, matrices):
    with pytest.raises(ValueError, match=NO_EFFECT):
        attach.attach(with_lora(toys.cogvideox_patcher(), published(matrices)), toy.adapter)


@pytest.mark.usefixtures("no_gradients")
def test_a_lora_without_effect_is_told_before_sampling(toy, matrices):
    with pytest.raises(ValueError, match=NO_EFFECT):
        render_toys.sample(toy._replace(model=with_lora(toy.model, published(matrices))))


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("before", [False, True])
def test_a_lora_with_effect_samples_on_both_sides_of_the_adapter(toy, matrices, before):
    lora = lora_keys.convert(published(matrices)).tensors
    if before:
        model = attach.attach(with_lora(toys.cogvideox_patcher(), lora), toy.adapter)
    else:
        model = with_lora(toy.model, lora)
    assert torch.isfinite(render_toys.sample(toy._replace(model=model))).all()
