"""Put adapters on a clone of the host's MODEL.

Everything goes through the ModelPatcher (object patch, wrapper, weight patches, additional model), so that stock
loaders, LoRA, quantised weights, offloading and caching go on working and the original MODEL stays untouched.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import comfy.conds
import comfy.model_management
import torch
from comfy.hooks import HookGroup, TransformerOptionsHook, set_hooks_for_conditioning
from comfy.latent_formats import LatentFormat
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrapperExecutor, WrappersMP, merge_nested_dicts
from comfy.samplers import CFGGuider
from torch import Tensor

from . import background_motion, checkpoint, context_windows, dit, lora_keys, sampler
from .checkpoint import JOINT_TEXT, POSE_GROUPS, Adapter, Base
from .reference import Reference, ReferenceOnDevices
from .socket_type import wrong_type

KEY = "animate_anywhere"
# In CONDITIONING: the model is to scale the latents of the start picture, because Encode Shot did not know it.
SCALE_KEY = "image_latent_scale"
AUTO_SCALE = "auto"
POSE_NETWORK = f"{KEY}_pose_network"  # in transformer_options: the one on the device of the call


@dataclass(frozen=True)
class Control:
    """What is attached to a MODEL so far."""

    extra_conds: Callable[..., dict]  # the model's own
    pose: ModelPatcher | None = None  # of a dit.PoseNetwork
    pose_group: str | None = None  # of checkpoint.POSE_GROUPS
    pose_strength: float = 1.0
    joint_text: bool = False  # trained with picture and pose always there: guidance takes away the text alone
    has_reference: bool = False
    reference_strength: float = 1.0
    has_background_motion: bool = False
    image_latent_scale: float | None = None  # that the adapters were trained with


def attach(
    model: ModelPatcher,
    adapter: Adapter,
    pose_strength: float = 1.0,
    reference_strength: float = 1.0,
    background_motion_strength: float = 1.0,
) -> ModelPatcher:
    """A clone of ``model`` that obeys ``aa_pose`` and ``aa_reference`` in CONDITIONING.

    A strength of 0 leaves its part out altogether. With a group of JOINT_TEXT the model no longer runs without a pose,
    so both branches of guidance get one. Text beyond what CogVideoX was trained with is cut off.

    Raises ValueError when the model is no CogVideoX 1.5 I2V, when the adapter was made for another width or depth, or
    when the model has the same group, or another that follows the pose, already, or a LoRA without effect.
    """
    dit.check_base(model)
    lora_keys.check_effect(model)
    _check_adapter(adapter)
    _check_fit(model, adapter)
    patched = model.clone()
    before = patched.get_attachment(KEY) or Control(patched.get_model_object("extra_conds"))
    control = _merge(before, model, adapter, pose_strength, reference_strength)
    _install(patched, control)
    pose = pose_group_of(adapter)
    if pose is not None and pose_strength:
        patched.set_additional_models(KEY, [control.pose])
    if adapter.background_motion is not None and background_motion_strength:
        background_motion.apply(patched, adapter.background_motion, background_motion_strength)
    lora_keys.remember_patches(patched)
    return patched


def _install(patched: ModelPatcher, control: Control) -> None:
    """Put ``control`` on ``patched``, in place of what was there."""
    patched.set_attachments(KEY, control)
    patched.add_object_patch("extra_conds", _extra_conds(patched, control))
    patched.add_object_patch("resize_cond_for_context_window", context_windows.resize)
    for kind, wrapper in (
        (WrappersMP.APPLY_MODEL, _choose_pose_network(control)),
        (WrappersMP.DIFFUSION_MODEL, _forward(control)),
        (WrappersMP.SAMPLER_SAMPLE, sampler.require_cogvideox_sampler),
    ):
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    patched.remove_callbacks_with_key(CallbacksMP.ON_DEEPCLONE_MULTIGPU, KEY)
    patched.add_callback_with_key(CallbacksMP.ON_DEEPCLONE_MULTIGPU, KEY, _install_on_clone)


def _install_on_clone(source: ModelPatcher, clone: ModelPatcher) -> None:
    """Let ``clone``, which the host has loaded anew for another device, hold nothing of the model of ``source``."""
    control = clone.get_attachment(KEY)
    if getattr(control.extra_conds, "__self__", None) is source.model:
        control = replace(control, extra_conds=control.extra_conds.__func__.__get__(clone.model))
    for pose in clone.get_additional_models_with_key(KEY):
        control = replace(control, pose=pose)
    _install(clone, control)


def pose_group_of(adapter: Adapter) -> str | None:
    """The group of ``adapter`` that follows a pose; None if there is none, ValueError if there are several."""
    groups = [group for group in POSE_GROUPS if getattr(adapter, group) is not None]
    if len(groups) > 1:
        raise ValueError(f"adapter: it has {' and '.join(groups)}, and a model follows the pose through one of them.")
    return groups[0] if groups else None


def control_of(model: ModelPatcher) -> Control | None:
    """What is attached to ``model``; None for a MODEL without adapters. ValueError where it is none."""
    if not hasattr(model, "get_attachment"):
        raise wrong_type("model", model, "a model", "Connect Apply AnimateAnywhere Adapter")
    return model.get_attachment(KEY)


def image_latent_scale(model: ModelPatcher) -> float:
    """What the latents of the start picture are multiplied with for ``model``: as its adapters were trained, or else by
    its own released code."""
    control = control_of(model)
    if control is not None and control.image_latent_scale is not None:
        return control.image_latent_scale
    return Base.of(model.get_model_object("diffusion_model")).image_latent_scale


def scale_image_latents(latents: Tensor, latent_format: LatentFormat, scale: float) -> Tensor:
    """``latents`` [1, 16, t, h, w] so that the host, which multiplies them by the scale of all latents, ends up with
    ``scale`` times what they are."""
    return latents * (scale / latent_format.scale_factor)


def _check_fit(model: ModelPatcher, adapter: Adapter) -> None:
    expected, found = adapter.header.base, Base.of(model.get_model_object("diffusion_model"))
    if expected != found:
        raise ValueError(
            f"adapter: it was made for {expected}; the model has {found.blocks} blocks of width {found.width}"
            f"{'' if expected.text_width == found.text_width else f' and text of width {found.text_width}'}. "
            "Load the adapter that belongs to this model, or the model that the adapter was made for."
        )


def _beside(model: ModelPatcher, network: ModelPatcher) -> ModelPatcher:
    """``network``, or one loaded again for the GPU of ``model`` where Select Model Device has chosen another one."""
    device = model.load_device
    if device.type == "cpu" or device == network.load_device or network.cached_patcher_init is None:
        return network
    return network.deepclone_multigpu(new_load_device=device)


def _merge(
    control: Control, model: ModelPatcher, adapter: Adapter, pose_strength: float, reference_strength: float
) -> Control:
    pose_group = pose_group_of(adapter)
    there = {"reference": control.has_reference, "background_motion": control.has_background_motion}
    clashes = [control.pose_group] if pose_group and control.pose_group else []
    clashes += [group for group, has in there.items() if has and getattr(adapter, group) is not None]
    if clashes:
        raise ValueError(f"model: it has a {clashes[0]} adapter already. Connect the model from before that adapter.")
    if pose_group is not None:
        network = _beside(model, getattr(adapter, pose_group))
        joint_text = pose_group in JOINT_TEXT and pose_strength != 0
        control = replace(
            control, pose=network, pose_group=pose_group, pose_strength=pose_strength, joint_text=joint_text
        )
    scale = adapter.header.image_latent_scale
    if control.image_latent_scale not in (None, scale):
        raise ValueError(
            f"adapter: it was trained with start pictures scaled by {scale:g}, and the adapter that the model has "
            f"already with {control.image_latent_scale:g}. One model cannot serve both."
        )
    control = replace(control, image_latent_scale=scale)
    if adapter.reference is not None:
        control = replace(control, has_reference=True, reference_strength=reference_strength)
    moves = control.has_background_motion or adapter.background_motion is not None
    return replace(control, has_background_motion=moves)


def _extra_conds(model: ModelPatcher, control: Control) -> Callable[..., dict]:
    """The model's own extra_conds, and ours: called by the host once a run for each conditioning."""
    core = model.model

    def extra_conds(**kwargs) -> dict:
        pose, reference = kwargs.get("aa_pose"), kwargs.get("aa_reference")
        check_conditions(control, core.diffusion_model.dim, kwargs)
        check_pose_is_there(control, pose)
        text = kwargs.get("cross_attn")
        if text is not None:
            _check_text(text, core.diffusion_model.patch_embed.text_proj.in_features)
            # Here, before the host brings the texts of both branches to one length.
            kwargs["cross_attn"] = text[:, : dit.TEXT_TOKENS]
        if kwargs.pop(SCALE_KEY, None) == AUTO_SCALE:
            scaled = scale_image_latents(kwargs["concat_latent_image"], core.latent_format, control.image_latent_scale)
            kwargs["concat_latent_image"] = scaled
        out = control.extra_conds(**kwargs)
        noise, device = kwargs["noise"], kwargs["device"]
        if pose is not None and control.pose_strength:
            _check_pose(pose, noise)
            out["aa_pose"] = comfy.conds.CONDNoiseShape(core.process_latent_in(pose.to(device)))
        if reference is not None and control.reference_strength:
            # Moved once here, so that it stays on the device for the whole run and leaves with it.
            moved = reference.to(device, core.get_dtype_inference())
            out["aa_reference"] = comfy.conds.CONDConstant(ReferenceOnDevices(moved.states, moved.grid))
        return out

    return extra_conds


def check_conditions(control: Control | None, width: int, conditions: Mapping[str, object]) -> None:
    """Raise ValueError when a model of ``width`` with ``control`` cannot take the ``conditions`` {key: value}.

    Values of None, and keys that are not ours, are passed over. The error names the key and the node that brings it.
    """
    parts = {
        "aa_pose": ("pose_control", control is not None and control.pose is not None),
        "aa_reference": ("reference", control is not None and control.has_reference),
    }
    for key, value in conditions.items():
        if not key.startswith("aa_") or value is None:
            continue
        group, there = parts.get(key, (key.removeprefix("aa_"), False))
        if not there:
            raise ValueError(
                f"model: it has no adapter for {key}, which the shot brings (Shot, Encode Shot). Put Apply "
                f"AnimateAnywhere Adapter before it, with an adapter that has a {group} group."
            )
    reference = conditions.get("aa_reference")
    if reference is not None and reference.width != width:
        raise ValueError(
            f"model: its width is {width}, and the shot's reference was encoded by an adapter of width "
            f"{reference.width}. Use one adapter in Encode Character Reference and Apply AnimateAnywhere Adapter."
        )


class ShotHook(TransformerOptionsHook):
    """Travels in CONDITIONING from Encode Shot, so that a model without our wrappers is checked, too."""

    def __init__(self) -> None:
        super().__init__({"wrappers": {WrappersMP.SAMPLER_SAMPLE: {KEY: [_check_encoded_shot]}}})

    def add_hook_patches(self, model: ModelPatcher, model_options: dict, *_) -> bool:
        """Called by the host at the start of sampling. Not registered, so that conditions still run in one batch."""
        merge_nested_dicts(model_options, {"transformer_options": self.transformers_dict}, copy_dict1=False)
        return False


def mark_as_shot(conditioning: list) -> list:
    """``conditioning`` whose sampling begins with a check of the model and the sampler."""
    hooks = HookGroup()
    hooks.add(ShotHook())
    return set_hooks_for_conditioning(conditioning, hooks)


def _check_encoded_shot(executor: WrapperExecutor, guider: CFGGuider, *args, **kwargs) -> Tensor:
    """Raise ValueError where the model cannot take what Encode Shot gave, or the sampler is not CogVideoX's."""
    model = guider.model_patcher
    dit.check_base(model)
    width = model.get_model_object("diffusion_model").dim
    for conditions in guider.conds.values():
        for condition in conditions:
            check_conditions(control_of(model), width, condition)
    return sampler.require_cogvideox_sampler(executor, guider, *args, **kwargs)


def check_pose_is_there(control: Control | None, pose: object) -> None:
    """Raise ValueError when a model with ``control`` cannot run without a pose and ``pose`` is None."""
    if control is not None and control.joint_text and pose is None:
        raise ValueError(
            "model: DynamiCtrl cannot run without a pose, with or without guidance, and one of the two conditionings "
            "has none. Connect the model to Encode Shot, too, so that it gives both the pose; or use Sample Shot."
        )


def _check_text(text: Tensor, width: int) -> None:
    if text.shape[-1] != width:
        raise ValueError(
            f"positive or negative: its text encoder's width is {text.shape[-1]}, and the model reads {width}. Load "
            "T5-XXL with Load CLIP, type cogvideox, or use No Prompt with this very model."
        )


def _check_pose(pose: Tensor, noise: Tensor) -> None:
    if pose.shape[2:] != noise.shape[2:]:
        raise ValueError(
            f"positive: the pose's latents are {tuple(pose.shape[2:])} (frames, height, width) and the latent to "
            f"sample {tuple(noise.shape[2:])}. Take positive and latent from the same Encode Shot."
        )


def _choose_pose_network(control: Control) -> Callable:
    """The wrapper around BaseModel.apply_model. On several GPUs the host calls the first device's wrappers for all of
    them, and only the model that it calls knows the pose network on its own device."""

    def wrapper(executor: WrapperExecutor, x, t, concat, context, controlnet, transformer_options, **kwargs) -> Tensor:
        patcher = executor.class_obj.current_patcher
        there = [] if patcher is None or control.pose is None else patcher.get_additional_models_with_key(KEY)
        own = [each for each in there if each.clone_base_uuid == control.pose.clone_base_uuid]
        if own:
            transformer_options = {**transformer_options, POSE_NETWORK: own[0].model}
        return executor(x, t, concat, context, controlnet, transformer_options, **kwargs)

    return wrapper


def _forward(control: Control) -> Callable:
    """The wrapper around the transformer's forward. It takes the place of the innermost call only, so that other
    wrappers (EasyCache, for one) go on working whichever was added first."""

    def wrapper(executor: WrapperExecutor, *args, aa_pose=None, aa_reference=None, **kwargs) -> Tensor:
        if aa_pose is None and aa_reference is None:
            return executor(*args, **kwargs)
        network = executor.class_obj

        def forward(x, timestep, context, ofs=None, transformer_options=None, **_) -> Tensor:
            options = transformer_options or {}
            controls, keys = None, ()
            if aa_pose is not None:
                pose = aa_pose.to(x)
                follower: dit.PoseNetwork = options.get(POSE_NETWORK, control.pose.model)

                def controls(tokens: dit.Tokens):
                    return follower.controls(network, tokens, pose, control.pose_strength, options)

            if aa_reference is not None:
                keys = aa_reference.to(x.device, x.dtype).keys_for(network, control.reference_strength)
            return dit.forward(network, x, timestep, context, ofs, options, controls=controls, extra_keys=keys)

        inner = WrapperExecutor.new_class_executor(forward, network, executor.wrappers, executor.idx + 1)
        return inner.execute(*args, **kwargs)

    return wrapper


def _check_adapter(adapter: Adapter) -> None:
    if not isinstance(adapter, Adapter):
        raise wrong_type("adapter", adapter, "an adapter", "Connect Load AnimateAnywhere Adapter")


def check_has_reference(adapter: Adapter) -> None:
    """Raise ValueError when ``adapter`` cannot read a character."""
    _check_adapter(adapter)
    if adapter.reference is None:
        groups = ", ".join(adapter.header.groups)
        raise ValueError(f"adapter: it has no ReferenceNet (its groups: {groups}). Load one that has.")


def encode_reference(adapter: Adapter, latent: Tensor) -> Reference:
    """Run the ReferenceNet of ``adapter`` once.

    latent: [1, 16, 1, h, w] of the character's picture, in the VAE's scale.
    """
    patcher = adapter.reference
    comfy.model_management.load_models_gpu([patcher])
    device = patcher.load_device
    dtype = checkpoint.compute_dtype(patcher.model.dtype, device)
    scaled = adapter.header.base.latent_format.process_in(latent.float())
    with torch.no_grad():
        reference = patcher.model(scaled.to(device, dtype))
    return reference.to(comfy.model_management.intermediate_device(), dtype)
