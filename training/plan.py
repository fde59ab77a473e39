"""What a stage costs, reckoned without training: parameters, memory and time."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..models import dit
from ..models.checkpoint import Base
from ..models.latents import CHANNELS, PATCH, SIZE_STEP, frames_of, latent_frames
from .configuration import Configuration
from .epipolar import epipolar_bytes
from .journal import span
from .networks import STAGES, base_of, groups_of

GB = 1e9
CUBE = PATCH**3  # latent pixels in a token
# Numbers per token and channel that a block keeps for its gradient, counted at toy size (tests/test_train.py).
KEPT_TRAINED = 23  # inputs of all its layers
KEPT_FROZEN = 13  # of a frozen matrix, no input is needed
KEPT_LOW_RANK = 3  # more, where the background motion learner is trained on it
KEPT_KEYS = 8  # of the reference's keys and values, a block and token of the character's picture
# Of a way to follow a pose, a block and visual token: PadaLN's chain, its norm and what is added to the base; what goes
# into cross-attention's layers.
KEPT_POSE = {"pada_ln": 3, "cross_attention": 7}
# What the decoder of CogVideoX's VAE keeps, in pictures of 128 channels at full size: four blocks there, twice with the
# latents that are blended into every norm, and a little more at the smaller sizes. Reckoned, not measured.
VAE_KEPT = 90


def block_parameters(base: Base) -> int:
    """Of one transformer block."""
    d, t = base.width, base.time_width
    norms = 2 * (6 * d * t + 6 * d + 2 * d)  # two of (linear to 6 modulations, LayerNorm)
    return norms + attention_parameters(base) + (4 * d * d + 4 * d) + (4 * d * d + d)


def attention_parameters(base: Base) -> int:
    """Of q, k, v and out, and the norms of q and k."""
    return 4 * (base.width * base.width + base.width) + 2 * 2 * (base.width // base.heads)


def embedding_parameters(base: Base) -> int:
    """What stands before the first block: patches, text, time and ofs."""
    d, t = base.width, base.time_width
    patches = 2 * CHANNELS * CUBE * d + d
    return patches + (base.text_width * d + d) + (d * t + t) + 3 * (t * t + t)


def parameters(base: Base, rank: int) -> dict[str, int]:
    """How many each network has."""
    d, t = base.width, base.time_width
    block, count = block_parameters(base), base.controlled_blocks
    head = 2 * d + (2 * d * t + 2 * d + 2 * d) + (d * CHANNELS * CUBE + CHANNELS * CUBE)
    return {
        "base": embedding_parameters(base) + base.blocks * block + head,
        "pose_control": (CHANNELS * CUBE * d + d) + count * (block + d * d + d),
        "reference": embedding_parameters(base) + (count - 1) * block,
        "background_motion": base.blocks * 4 * 2 * d * rank,
        "pada_ln": base.blocks * (3 * d * t + 3 * d + 2 * d),
        "unified_tokens": CHANNELS * CUBE * d,
        "cross_attention": base.blocks * attention_parameters(base),
    }


@dataclass(frozen=True)
class Plan:
    """Figures of one stage. Bytes are of one device."""

    configuration: Configuration
    parameters: Mapping[str, int]  # of what is there in this stage, by network
    trained: int
    tokens: int  # of a clip, with text
    memory: Mapping[str, float]  # bytes by part
    operations: float  # floating-point, of one step of all devices
    seconds: float  # a step

    @property
    def fits(self) -> bool:
        return sum(self.memory.values()) <= self.configuration.hardware.memory * GB


def tokens_of(configuration: Configuration) -> tuple[int, int]:
    """Tokens of the largest clip, and of text."""
    data = configuration.data
    area = max(width * height for width, height in data.sizes) // SIZE_STEP**2
    return token_frames_of(configuration) * area, dit.text_tokens(configuration.model.text_width)


def token_frames_of(configuration: Configuration) -> int:
    return latent_frames(configuration.data.frames) // PATCH


def make(configuration: Configuration) -> Plan:
    base = base_of(configuration.model)
    stage = configuration.stage
    counts = parameters(base, configuration.model.rank)
    there = {name: counts[name] for name in ("base", *groups_of(stage)) if counts[name]}
    trained = sum(count for name, count in there.items() if name in STAGES[stage])
    visual, text = tokens_of(configuration)
    operations = configuration.run.batch * operations_of_clip(base, stage, visual, text, configuration)
    hardware = configuration.hardware
    seconds = operations / (hardware.devices * hardware.teraflops * 1e12)
    memory = _memory(configuration, base, there, trained, visual, text)
    return Plan(configuration, there, trained, visual + text, memory, operations, seconds)


def block_operations(base: Base, queries: int, keys: int) -> float:
    """Floating-point operations of one block forward: matrices (24 D² a token), and attention."""
    return 24 * base.width**2 * queries + 4 * base.width * queries * keys


def operations_of_clip(base: Base, stage: str, visual: int, text: int, configuration: Configuration) -> float:
    """Forward and backward of one clip, as it is computed.

    Backward costs what forward does for gradients with respect to activations and, of matrices, once more for weights
    that are trained; checkpointing adds a second forward.
    """
    groups, trains = groups_of(stage), STAGES[stage]
    again = 2 if configuration.run.checkpointing else 1
    tokens, frame = visual + text, visual // token_frames_of(configuration)
    matrices, attending = 24 * base.width**2 * tokens, 4 * base.width * tokens**2
    forward = matrices + attending

    def cost(blocks: int, trained: bool, passed: bool = True) -> float:
        if not (trained or passed):
            return blocks * forward
        return blocks * (again * forward + matrices + 2 * attending + (matrices if trained else 0))

    total = cost(base.blocks, "base" in trains)
    if "pose_control" in groups:
        # A frozen ControlNet is only run: its input does not depend on what is trained.
        total += cost(base.controlled_blocks, "pose_control" in trains, passed=False)
    if "reference" in groups:
        small = block_operations(base, frame + text, frame + text) * (base.controlled_blocks - 1)
        extra = base.controlled_blocks * (4 * base.width * tokens * frame + 4 * base.width**2 * frame)
        total += (again + 2) * (small + extra)
    if "cross_attention" in groups:  # behind its keys and values is nothing that is trained
        own, looking = 8 * base.width**2 * visual, 4 * base.width * visual**2
        total += base.blocks * (again * (own + looking) + 1.5 * own + 2 * looking)
    return total


def _memory(
    configuration: Configuration, base: Base, there: Mapping[str, int], trained: int, visual: int, text: int
) -> dict[str, float]:
    model, run = configuration.model, configuration.run
    number = 2 if model.dtype == "bfloat16" else 4
    shares = configuration.hardware.devices  # of the optimiser's state
    # AdamW keeps two moments and, for weights in bfloat16, a copy, all in float32.
    state = 0 if configuration.optimiser.offload else trained * (12 if number == 2 else 8) / shares
    activation = 2 if number == 2 or run.autocast else 4
    clips = min(run.micro_batch, run.batch // configuration.hardware.devices)
    memory = {
        "weights": sum(there.values()) * number,
        "gradients": trained * number,
        "optimiser": state,
        "activations": clips * _activations(configuration, base, there, visual, text) * activation,
    }
    if configuration.loss.epipolar:
        blocks = len(configuration.loss.probed_blocks)
        memory["epipolar loss"] = epipolar_bytes(
            visual, configuration.loss.queries, base.heads, text=text, clips=clips, itemsize=activation, blocks=blocks
        )
    memory["VAE"] = _vae(configuration, base)
    return memory


def _activations(configuration: Configuration, base: Base, there: Mapping[str, int], visual: int, text: int) -> float:
    """Numbers that one clip keeps until backward."""
    trains = STAGES[configuration.stage]
    wide, frame = (visual + text) * base.width, visual // token_frames_of(configuration) * base.width
    states = base.controlled_blocks
    keys = KEPT_KEYS * states * frame if "reference" in trains else 0
    controlled = states if "pose_control" in trains else 0  # a frozen one is only run
    steered = sum(count for name, count in KEPT_POSE.items() if name in trains) * visual * base.width
    if configuration.run.checkpointing:  # what goes into each block, and all of the one that is computed again
        # PadaLN runs outside of the blocks, and what it adds waits for them to be computed again.
        outside = base.blocks * (steered + visual * base.width) if "pada_ln" in trains else steered
        return wide * (base.blocks + controlled + KEPT_TRAINED) + keys + frame * states + outside
    kept = KEPT_TRAINED if "base" in trains else KEPT_FROZEN
    kept += KEPT_LOW_RANK * ("background_motion" in trains and "background_motion" in there)
    reference = KEPT_TRAINED * (states - 1) * frame if "reference" in trains else 0
    return wide * (base.blocks * kept + KEPT_TRAINED * controlled) + keys + reference + base.blocks * steered


def _vae(configuration: Configuration, base: Base) -> float:
    """Bytes of weights, and of what decoding keeps for the perceptual loss."""
    data, loss = configuration.data, configuration.loss
    pixels = max(width * height for width, height in data.sizes)
    latents = latent_frames(data.frames)
    if loss.window_latents:
        latents, pixels = min(latents, loss.window_latents), min(pixels, loss.window_side**2)
    frames = (frames_of(latents)) if loss.perceptual else 0
    clips = loss.decoded or -(-configuration.run.micro_batch * 3 // 10)
    if base.heads < 48:  # TAEHV: 11 M parameters in float32, some ten layers of 32 live channels at full size
        return 11.3e6 * 4 + clips * pixels * frames * 32 * 4 * 10
    return 216e6 * 2 + clips * pixels * frames * 128 * 2 * VAE_KEPT


def text_of(plan: Plan) -> str:
    """The plan in words and figures."""
    configuration, run, hardware = plan.configuration, plan.configuration.run, plan.configuration.hardware
    lines = [f"{configuration.name}, stage {configuration.stage}: {run.steps:,} steps of {run.batch} clips"]
    sizes = ", ".join(f"{width}×{height}" for width, height in configuration.data.sizes)
    lines.append(f"Clips: {configuration.data.frames} frames of {sizes} px; {plan.tokens:,} tokens with text")
    lines.append("Parameters")
    trains = STAGES[configuration.stage]
    lines += [
        f"  {name:<18} {count:>15,}  {'trained' if name in trains else 'frozen'}"
        for name, count in plan.parameters.items()
    ]
    lines.append(f"  {'trained':<18} {plan.trained:>15,}")
    lines.append(f"Memory of each of {hardware.devices} device(s)")
    lines += [f"  {name:<18} {size / GB:>12.2f} GB" for name, size in plan.memory.items()]
    total = sum(plan.memory.values()) / GB
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    lines.append(f"  {'together':<18} {total:>12.2f} GB of {hardware.memory:g}: {verdict}")
    if configuration.optimiser.offload:
        lines.append(f"  {'the machine, besides':<18} {plan.trained * 12 / GB:>10.2f} GB for the optimiser")
    lines.append(
        f"Time: {plan.operations / 1e12:,.3g} teraflop a step, at {hardware.teraflops:g} teraflop/s and device "
        f"{plan.seconds:.3g} s; {span(plan.seconds * run.steps)} in all"
    )
    return "\n".join(lines)
