"""The family under training: the frozen base and the adapters on it, run by the very forward that ComfyUI uses."""

import hashlib
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from ..models import checkpoint, dit
from ..models.checkpoint import JOINT_TEXT, POSE_GROUPS, Base
from ..models.latents import CHANNELS, PATCH
from .background_motion import BackgroundMotion
from .configuration import Model

GROUPS = ("pose_control", "reference", "background_motion")  # AnimateAnywhere's, one stage on top of the other
# stage -> what it trains. The groups of AnimateAnywhere's earlier stages are there too, and stay as they are.
STAGES = {
    "base": ("base",),
    "pose_control": ("pose_control",),
    "reference": ("reference",),
    "joint": GROUPS,
    # DynamiCtrl's way to follow a pose, and the two that its ablation rejects: each alone on the frozen base.
    **{group: (group,) for group in JOINT_TEXT},
}
BASE_STAGE = "base"
POSE_NETWORKS = {
    "pose_control": checkpoint.pose_control_for,
    "pada_ln": checkpoint.pada_ln_for,
    "unified_tokens": checkpoint.unified_tokens_for,
    "cross_attention": checkpoint.cross_attention_for,
}


def groups_of(stage: str) -> tuple[str, ...]:
    """The adapter's groups that exist in ``stage``."""
    if stage == BASE_STAGE:
        return ()
    if stage in JOINT_TEXT:
        return STAGES[stage]
    last = max(GROUPS.index(group) for group in STAGES[stage])
    return GROUPS[: last + 1]


def base_of(model: Model) -> Base:
    """What ``model`` of a configuration describes, in the words of an adapter's header."""
    return Base(model.heads * 64, model.heads, model.blocks, model.time_width, model.text_width)


def build_base(base: Base, device=None, dtype=torch.float32) -> CogVideoXTransformer3DModel:
    """The host's network with torch's own layers and initialisation, ready to be trained."""
    network = CogVideoXTransformer3DModel(
        num_attention_heads=base.heads,
        attention_head_dim=base.width // base.heads,
        in_channels=2 * CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=base.time_width,
        ofs_embed_dim=base.time_width,
        text_embed_dim=base.text_width,
        num_layers=base.blocks,
        patch_size=PATCH,
        patch_size_t=PATCH,
        use_rotary_positional_embeddings=True,
        operations=nn,
        device=device,
        dtype=dtype,
    )
    return network.to(dtype)  # the host builds its patch embedding in float32 whatever is asked for


def load_base(path: Path, base: Base, dtype: torch.dtype) -> CogVideoXTransformer3DModel:
    """The base at ``path``, in the host's keys. Raises ValueError when it is missing or another network."""
    import comfy.utils

    if not path.is_file():
        raise ValueError(f"model.base: there is no file {path}. Train stage base first, or name the file.")
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    network = build_base(base, device="meta", dtype=dtype)
    try:
        network.load_state_dict({key: value.to(dtype) for key, value in state.items()}, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ValueError(f"model.base: {path.name} is not {base}: {first}") from error
    return network


def attention(function, q: Tensor, k: Tensor, v: Tensor, heads: int, **_) -> Tensor:
    """The host's attention [B, S, D] through torch's own kernel.

    The host's choice for a CPU works in place and in slices, without regard to gradients; under autocast its queries
    and keys stay in float32, because LayerNorm and RoPE leave them so.
    """
    q, k, v = (x.to(v.dtype).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # [B, heads, S, head_dim]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Family(nn.Module):
    """Base and adapters of a stage. What the stage does not train is frozen.

    Its networks come from one seed, copies of the base joined by zeros; load() then puts trained ones in their place.
    """

    def __init__(self, base: CogVideoXTransformer3DModel, stage: str, rank: int, seed: int = 0) -> None:
        super().__init__()
        like = next(base.parameters())
        what = Base.of(base)
        groups = groups_of(stage)

        def copy(network: nn.Module) -> nn.Module:  # built without values: all of them come from the base
            return network.to_empty(device=like.device).start_from(base)

        empty = {"device": "meta", "dtype": like.dtype}
        self.stage = stage
        self.base = base
        for name in checkpoint.GROUPS:
            setattr(self, name, None)
        for name in set(groups).intersection(POSE_GROUPS):
            setattr(self, name, copy(POSE_NETWORKS[name](what, **empty)))
        if "reference" in groups:
            self.reference = copy(checkpoint.reference_for(what, operations=nn, **empty).to(like.dtype))
        if "background_motion" in groups and rank:
            self.background_motion = BackgroundMotion(base, rank, seed, like.dtype).to(like.device)
            self.background_motion.attach(base)
        self.requires_grad_(False)
        for part in self.trained().values():
            part.requires_grad_(True)

    def base_mark(self) -> str:
        """Tells this frozen base from another of the same size, by some of its weights: 11 GB take long to read."""
        if self.stage == BASE_STAGE:
            return ""
        some = (self.base.patch_embed.proj.weight, self.base.proj_out.weight)
        data = b"".join(weight.detach().float().cpu().numpy().tobytes() for weight in some)
        return hashlib.sha256(data).hexdigest()[:16]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.base.parameters()).dtype

    @staticmethod
    def options() -> dict:
        """transformer_options of a plain run."""
        return {"optimized_attention_override": attention}

    def trained(self) -> dict[str, nn.Module]:
        """The networks that this stage trains, by group."""
        there = {name: getattr(self, name) for name in STAGES[self.stage]}
        return {name: part for name, part in there.items() if part is not None}

    @property
    def pose_network(self) -> dit.PoseNetwork | None:
        """What makes the base follow a pose."""
        return next((getattr(self, name) for name in POSE_GROUPS if getattr(self, name) is not None), None)

    @property
    def joint_text(self) -> bool:
        """Whether both branches of guidance have the pose, and the text alone, which there is none of, differs."""
        return self.stage in JOINT_TEXT

    def checkpoint_blocks(self) -> "Family":
        """Keep only what goes into each block, and compute it again when its gradient is asked for."""
        for network in (self.base, self.pose_control, self.reference):
            for block in () if network is None else network.blocks:
                block.around = partial(recompute, use_reentrant=False)  # dit.run_block looks for it
        return self

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        background: Tensor,
        pose: Tensor | None = None,
        character: Tensor | None = None,
        transformer_options: dict | None = None,
    ) -> Tensor:
        """Velocity [B, 16, t, h, w]. All latents are in the model's scale; ``transformer_options`` build on options().

        noisy, background, pose: [B, 16, t, h, w]; timestep: [B]; character: [B, 16, 1, h', w']. A condition that is
        None is left out as the graph leaves it out, and its network does not run. The background is brought to the
        scale that the base was released with.
        """
        base = checkpoint.Base.of(self.base)
        background = background * (base.image_latent_scale / base.latent_format.scale_factor)
        plain = self.options()  # probes look at the base, not at its copies
        text = dit.no_text(self.base.patch_embed.text_proj.in_features, noisy.device, noisy.dtype)
        controls, keys = None, ()
        if pose is not None and self.pose_network is not None:

            def controls(tokens: dit.Tokens):
                return self.pose_network.controls(self.base, tokens, pose, 1.0, plain)

        if character is not None and self.reference is not None:
            keys = self.reference(character, plain).keys_for(self.base, 1.0)
        return dit.forward(
            self.base,
            torch.cat([noisy, background], dim=1),
            timestep,
            text.expand(len(noisy), -1, -1),
            timestep.new_full((len(noisy),), dit.OFS, dtype=torch.float32),
            transformer_options or plain,
            controls=controls,
            extra_keys=keys,
        )

    def file_groups(self) -> dict[str, dict[str, Tensor]]:
        """The adapter's groups as models/checkpoint.save wants them."""
        groups = {name: getattr(self, name) for name in checkpoint.GROUPS}
        return {
            name: part.file_state() if name == "background_motion" else part.state_dict()
            for name, part in groups.items()
            if part is not None
        }

    @torch.no_grad()
    def load_groups(self, groups: dict[str, dict[str, Tensor]]) -> list[str]:
        """Take over those groups that this stage has; the names of those taken."""
        taken = []
        for name, state in groups.items():
            part = getattr(self, name, None)
            if part is None:
                continue
            part.load_file_state(state) if name == "background_motion" else part.load_state_dict(state)
            taken.append(name)
        return taken
