"""Adapters on the host's MODEL: what they change, what they leave alone, and what they cost."""

import comfy.model_patcher
import comfy.sd
import comfy.utils
import pytest
import safetensors.torch
import torch
import toys
from animate_anywhere.models import attach, checkpoint, dit
from animate_anywhere.models.reference import Reference
from comfy.cli_args import args
from comfy.ldm.modules import attention

FRAMES, HEIGHT, WIDTH = 2, 4, 8


def adapter_file(folder, model, trained=True, **provenance):
    """An adapter for ``model``, trained or fresh."""
    network = model.model.diffusion_model
    groups = toys.trained_groups(model) if trained else checkpoint.fresh(network, rank=4, dtype=torch.float32)
    path = folder / "adapter.safetensors"
    checkpoint.save(path, checkpoint.Base.of(network), groups, **provenance)
    return path


@pytest.fixture
def model():
    return toys.cogvideox_patcher()


@pytest.fixture
def adapter(tmp_path, model):
    return checkpoint.load(adapter_file(tmp_path, model))


@pytest.fixture
def reference(adapter):
    return attach.encode_reference(adapter, torch.randn(1, 16, 1, HEIGHT, WIDTH))


@pytest.fixture
def pose():
    return torch.randn(1, 16, FRAMES, HEIGHT, WIDTH)


def velocity(model, x=None, **conditions):
    """One call of the model as the sampler makes it: loaded, patched, conditions through extra_conds."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 16, FRAMES, HEIGHT, WIDTH, generator=generator) if x is None else x
    context = torch.randn(1, 5, toys.CONFIG["text_embed_dim"], generator=generator)
    start = torch.randn(1, 16, FRAMES, HEIGHT, WIDTH, generator=generator)
    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    core = model.model
    conds = core.extra_conds(
        noise=x, device=x.device, cross_attn=context, concat_latent_image=start, **conditions
    )  # as comfy.samplers.encode_model_conds does
    given = {key: cond.process_cond(batch_size=1, area=None).cond for key, cond in conds.items()}
    options = {"wrappers": model.wrappers}
    with torch.no_grad():
        return core.apply_model(x, torch.tensor([5.0]), transformer_options=options, **given)


def test_a_fresh_pose_control_and_background_motion_change_nothing(tmp_path, model, pose):
    fresh = checkpoint.load(adapter_file(tmp_path, model, trained=False))
    patched = attach.attach(model, fresh)
    assert torch.equal(velocity(patched, aa_pose=pose), velocity(model))


def test_strength_0_changes_nothing_to_the_bit(model, adapter, pose, reference):
    patched = attach.attach(model, adapter, 0, 0, 0)
    assert torch.equal(velocity(patched, aa_pose=pose, aa_reference=reference), velocity(model))


@pytest.mark.parametrize(
    ("strengths", "keys"), [((1, 0, 0), ["aa_pose"]), ((0, 1, 0), ["aa_reference"]), ((0, 0, 1), [])]
)
def test_each_part_has_an_effect_of_its_own(model, adapter, pose, reference, strengths, keys):
    patched = attach.attach(model, adapter, *strengths)
    conditions = {"aa_pose": pose, "aa_reference": reference}
    changed = velocity(patched, **{key: conditions[key] for key in keys})
    assert (changed - velocity(model)).abs().max() > 1e-3


@pytest.mark.parametrize("part", range(3))
def test_strengths_in_between_are_continuous(model, adapter, pose, reference, part):
    """A step of 1e-3 in strength moves the output by about 1e-3 of what the whole strength moves it (factor 10 for
    curvature), at both ends and in the middle."""

    def at(strength):
        strengths = [0.0, 0.0, 0.0]
        strengths[part] = strength
        return velocity(attach.attach(model, adapter, *strengths), aa_pose=pose, aa_reference=reference)

    whole = (at(1.0) - at(0.0)).abs().max()
    for start in (0.0, 0.5, 0.999):
        assert 0 < (at(start + 1e-3) - at(start)).abs().max() < 1e-2 * whole


def test_reference_at_half_strength_is_halfway_between_attention_without_and_with_its_keys():
    q, keys, values = torch.randn(1, 4, 8), torch.randn(1, 3, 8), torch.randn(1, 3, 8)

    def outputs(strength):
        options = dit._widen_attention({}, keys, values, strength) if strength else {}
        return attention.optimized_attention(q, q, q, heads=2, transformer_options=options)

    torch.testing.assert_close(outputs(0.5), (outputs(0) + outputs(1)) / 2)


def test_reference_at_strength_1_costs_one_attention_call_and_in_between_two(monkeypatch):
    calls = []

    def function(q, k, v, heads):
        calls.append(k.shape[1])
        return q

    q, extra = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
    for strength in (1.0, 0.5):
        options = dit._widen_attention({}, extra, extra, strength)
        options["optimized_attention_override"](function, q, q, q, heads=2)
    assert calls == [7, 7, 4]


def test_keys_and_values_equal_concatenate_attend_drop(model, reference):
    """Reference tokens run through the block as further visual tokens, then dropped (section III-B)."""
    network = model.model.diffusion_model
    block, given = network.blocks[1], toys.inputs(height=HEIGHT, width=WIDTH)
    with torch.no_grad():
        tokens = dit.embed(network, **given)
        extra = reference.keys_for(network, 1.0)[1]
        ours = dit.run_block(block, tokens, {}, extra)
        joint_rope = tuple(torch.cat([own, more]) for own, more in zip(tokens.rope, extra.rope))
        joint = dit.Tokens(
            torch.cat([tokens.hidden, extra.hidden], dim=1), tokens.text, tokens.temb, joint_rope, tokens.grid
        )
        whole = dit.run_block(block, joint, {})
    count = tokens.hidden.shape[1]
    torch.testing.assert_close(ours.hidden, whole.hidden[:, :count], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.text, whole.text, rtol=1e-5, atol=1e-5)


def test_a_background_motion_file_gives_the_same_through_the_hosts_lora_loader(tmp_path, model, adapter):
    path = tmp_path / "background_motion.safetensors"
    safetensors.torch.save_file(adapter.background_motion, path)
    stock, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), 0.7, 0)
    ours = attach.attach(model, adapter, 0, 0, 0.7)
    assert torch.equal(velocity(stock), velocity(ours))
    assert not torch.equal(velocity(stock), velocity(model))


def test_the_original_model_is_untouched(model, adapter, pose, reference):
    before, patches = velocity(model), dict(model.patches)
    velocity(attach.attach(model, adapter), aa_pose=pose, aa_reference=reference)
    assert torch.equal(velocity(model), before)
    assert model.patches == patches and not model.object_patches and not model.additional_models
    assert attach.control_of(model) is None


def test_a_clone_keeps_the_adapters(model, adapter, pose):
    patched = attach.attach(model, adapter)
    assert torch.equal(velocity(patched.clone(), aa_pose=pose), velocity(patched, aa_pose=pose))


def test_a_stock_lora_works_on_top(model, adapter, pose):
    lora = {
        "diffusion_model.blocks.0.q.lora_A.weight": torch.randn(2, 128),
        "diffusion_model.blocks.0.q.lora_B.weight": torch.randn(128, 2),
    }
    patched = attach.attach(model, adapter)
    with_lora, _ = comfy.sd.load_lora_for_models(patched, None, lora, 1.0, 0)
    assert not torch.equal(velocity(with_lora, aa_pose=pose), velocity(patched, aa_pose=pose))


def test_fp8_weights_work(adapter, pose, reference):
    """fp8 keeps 3 bits of mantissa: the output is near the full one, not equal (a tenth of its size here)."""
    quantised = toys.cogvideox_patcher(dtype=torch.float8_e4m3fn)
    assert quantised.model.diffusion_model.blocks[0].q.weight.dtype == torch.float8_e4m3fn
    conditions = {"aa_pose": pose, "aa_reference": reference}
    output = velocity(attach.attach(quantised, adapter), **conditions).float()
    full = velocity(attach.attach(toys.cogvideox_patcher(), adapter), **conditions)
    assert 0 < (output - full).norm() < 0.1 * full.norm()


def test_an_adapter_stored_in_fp8_reads_a_character(tmp_path, monkeypatch, model):
    """--fp8_e4m3fn-unet: near what full precision reads (fp8 keeps 3 bits of mantissa), in the base's own dtype."""
    path, latent = adapter_file(tmp_path, model), torch.randn(1, 16, 1, HEIGHT, WIDTH)
    full = attach.encode_reference(checkpoint.load(path), latent).states
    monkeypatch.setattr(args, "fp8_e4m3fn_unet", True)
    stored = checkpoint.load(path)
    assert stored.reference.model.blocks[0].q.weight.dtype == torch.float8_e4m3fn
    for ours, expected in zip(attach.encode_reference(stored, latent).states, full, strict=True):
        assert ours.dtype == expected.dtype
        assert 0 < (ours - expected).norm() < 0.1 * expected.norm()


def test_a_base_that_would_compute_in_fp8_is_refused(model, adapter):
    """Dynamic VRAM assigns the weights of an fp8 file as they are, and the host casts the input to their dtype."""
    network = model.model.diffusion_model
    state = {key: value.to(torch.float8_e4m3fn) for key, value in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    with pytest.raises(ValueError, match="model: .*patch embedding in fp8, .*--disable-dynamic-vram"):
        attach.attach(model, adapter)


def test_two_files_with_different_groups_add_up(tmp_path, model, adapter, pose):
    header, groups = checkpoint.read(tmp_path / "adapter.safetensors")
    parts = []
    for name in ("pose_control", "background_motion"):
        path = tmp_path / f"{name}.safetensors"
        checkpoint.save(path, header.base, {name: groups[name]})
        parts.append(checkpoint.load(path))
    both = attach.attach(attach.attach(model, parts[0]), parts[1])
    # Not to the bit: weights mapped from a file at another offset may go through another kernel.
    torch.testing.assert_close(velocity(both, aa_pose=pose), velocity(attach.attach(model, adapter), aa_pose=pose))


def test_the_same_group_twice_is_refused(model, adapter):
    with pytest.raises(ValueError, match="pose_control adapter already"):
        attach.attach(attach.attach(model, adapter), adapter)


def test_a_condition_without_its_adapter_is_named(tmp_path, model, adapter, pose, reference):
    header, groups = checkpoint.read(tmp_path / "adapter.safetensors")
    path = tmp_path / "pose_only.safetensors"
    checkpoint.save(path, header.base, {"pose_control": groups["pose_control"]})
    patched = attach.attach(model, checkpoint.load(path))
    with pytest.raises(ValueError, match=r"aa_reference, .*Encode Shot.* reference group"):
        velocity(patched, aa_pose=pose, aa_reference=reference)


def test_an_adapter_for_another_width_is_refused(adapter):
    with pytest.raises(ValueError, match="blocks of width 128; the model has 4 blocks of width 64"):
        attach.attach(toys.cogvideox_patcher(num_attention_heads=1), adapter)


def test_a_pose_of_another_length_is_refused(model, adapter):
    with pytest.raises(ValueError, match="Encode Shot"):
        velocity(attach.attach(model, adapter), aa_pose=torch.randn(1, 16, FRAMES + 2, HEIGHT, WIDTH))


def test_a_reference_of_another_width_is_refused(model, adapter):
    foreign = Reference((torch.randn(1, 8, 64),), (2, 4))
    with pytest.raises(ValueError, match="width is 128, .* of width 64"):
        velocity(attach.attach(model, adapter), aa_reference=foreign)


# --- the scale of the start picture's latents


@pytest.mark.parametrize(("heads", "scale"), [(2, 1.15258426), (48, 1.0)])
def test_a_base_is_shown_start_pictures_as_it_was_released(heads, scale):
    """The 5B model was trained with a start picture that its VAE had not scaled; see docs/decisions.md."""
    model = toys.cogvideox_patcher(num_attention_heads=heads, num_layers=1)
    assert attach.image_latent_scale(model) == pytest.approx(scale)


@pytest.mark.parametrize("written", [True, False])
def test_an_adapter_is_shown_start_pictures_as_it_was_trained(tmp_path, model, written):
    training = {"stage": "joint", **({"image_latent_scale": 0.25} if written else {})}
    adapter = checkpoint.load(adapter_file(tmp_path, model, training=training))
    expected = 0.25 if written else 1.15258426
    assert attach.image_latent_scale(attach.attach(model, adapter)) == pytest.approx(expected)


def test_an_adapter_file_from_before_the_scale_was_written_takes_that_of_its_base(model):
    base = checkpoint.Base.of(model.model.diffusion_model)
    header = checkpoint.Header(base, {}, {"stage": "joint"})
    assert header.image_latent_scale == pytest.approx(1.15258426)


def test_adapters_of_two_scales_do_not_share_a_model(tmp_path, model):
    groups = toys.trained_groups(model)
    base = checkpoint.Base.of(model.model.diffusion_model)
    files = [("reference", 0.25), ("pose_control", 0.5)]
    for name, scale in files:
        training = {"image_latent_scale": scale}
        checkpoint.save(tmp_path / f"{name}.safetensors", base, {name: groups[name]}, training=training)
    first, second = (checkpoint.load(tmp_path / f"{name}.safetensors") for name, _ in files)
    with pytest.raises(ValueError, match=r"scaled by 0\.5, and the adapter that the model has already with 0\.25"):
        attach.attach(attach.attach(model, first), second)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_model_scales_the_start_picture_itself_where_it_was_not_known(tmp_path, model, scale):
    adapter = checkpoint.load(adapter_file(tmp_path, model, training={"image_latent_scale": scale}))
    patched, start = attach.attach(model, adapter), torch.randn(1, 16, FRAMES, HEIGHT, WIDTH)

    def start_seen(**conditions):
        conds = patched.get_model_object("extra_conds")(
            noise=start, device=start.device, cross_attn=None, concat_latent_image=start.clone(), **conditions
        )
        return conds["c_concat"].cond

    torch.testing.assert_close(start_seen(), 1.15258426 * start)
    torch.testing.assert_close(start_seen(image_latent_scale="auto"), scale * start)
