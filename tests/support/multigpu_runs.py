"""The host's MultiGPU nodes around the pack's: sampled on two make-believe devices, and on the CPU to compare with.

Both conditionings have pose and reference, so that each device has to do with both.
"""

from collections.abc import Callable

import comfy.model_management
import comfy.sd
import comfy_extras.nodes_multigpu as stock
import torch
from animate_anywhere.models import attach, checkpoint, sampler
from animate_anywhere.models.pada_ln import PadaLN
from animate_anywhere.models.pose_control import PoseControl
from comfy_extras.nodes_custom_sampler import SamplerCustom
from safetensors.torch import save_file

from . import node_runs
from .node_runs import World


def base(world: World) -> object:
    """A MODEL that came from a file, which the host can load again."""
    path = world.folder / "base.safetensors"
    if not path.exists():
        save_file(node_runs.toys.cogvideox_state(), path)
    return comfy.sd.load_diffusion_model(str(path), {"dtype": torch.float32})


def split(world: World, model: object) -> object:
    # As in a ComfyUI just started: its node fails on models that other prompts have loaded and dropped since.
    comfy.model_management.current_loaded_models.clear()
    return stock.MultiGPUCFGSplitNode.execute(model, 2).result[0] if world.kind == "two" else model


def select(world: World, model: object, device: str) -> object:
    return stock.SelectModelDeviceNode.execute(model, device).result[0] if world.kind == "two" else model


def adapted(world: World, model: object) -> object:
    assert world.adapter
    return attach.attach(model, checkpoint.load(world.folder / f"{world.kind}.safetensors"), reference_strength=0.7)


def sampled(world: World, model: object, reference: bool = True, places: tuple = ("cuda:0", "cuda:1")) -> torch.Tensor:
    """Latents; raises AssertionError unless the pose networks worked on `places`, with weights that lie there."""
    shot = world.shot(reference=reference)
    positive, _, latent = world.node("EncodeShot", shot=shot, **world.sampling | {"model": model})
    sigmas = sampler.trailing_sigmas(model.get_model_object("model_sampling"), 1)
    with worked(PoseControl) as controlled, worked(PadaLN) as normed, torch.inference_mode():
        result = SamplerCustom.execute(
            model, True, 5, 2.5, positive, positive, sampler.CogVideoXSampler("ddim"), sigmas, latent
        ).result
    seen = controlled | normed
    if world.kind == "two":
        assert seen == {(place, place) for place in places}, f"pose networks: (input on, weights on) {sorted(seen)}"
    return result[0]["samples"]


class worked:
    """Within the block: where the networks of a class got their input, and where their weights were."""

    def __init__(self, kind: type) -> None:
        self.kind, self.seen = kind, set()

    def __enter__(self) -> set:
        original = self.original = self.kind.controls

        def controls(network, base, tokens, *args):
            self.seen.add((str(tokens.hidden.device), str(next(network.parameters()).device)))
            return original(network, base, tokens, *args)

        self.kind.controls = controls
        return self.seen

    def __exit__(self, *_) -> None:
        self.kind.controls = self.original


def adapter_then_split(world: World) -> tuple:
    return (sampled(world, split(world, adapted(world, base(world)))),)


def split_then_adapter(world: World) -> tuple:
    return (sampled(world, adapted(world, split(world, base(world)))),)


def adapter_then_select(world: World) -> tuple:
    return (sampled(world, select(world, adapted(world, base(world)), "gpu:1"), places=("cuda:1",)),)


def select_then_adapter(world: World) -> tuple:
    return (sampled(world, adapted(world, select(world, base(world), "gpu:1")), places=("cuda:1",)),)


def dynamictrl(world: World) -> tuple:
    (model,) = world.node("LoadDynamiCtrl", checkpoint="DynamiCtrl/transformer/")
    return (sampled(world, split(world, model), reference=False),)


RUNS: dict[str, Callable[[World], tuple]] = {
    "MultiGPU after the adapter": adapter_then_split,
    "MultiGPU before the adapter": split_then_adapter,
    "Select Model Device after the adapter": adapter_then_select,
    "Select Model Device before the adapter": select_then_adapter,
    "MultiGPU with DynamiCtrl": dynamictrl,
}
