"""Change the form of weight files.

    convert.py unpickle old.pt new.safetensors          a pickled state dict, read without running its code
    convert.py cogvideox FOLDER model.safetensors       a CogVideoX or DynamiCtrl transformer in diffusers' layout (a
                                                        folder of shards) as the one file that ComfyUI reads
    convert.py diffusers model.safetensors FOLDER       the way back, to the bit
    convert.py background-motion adapter.safetensors lora.safetensors
                                                        an adapter's background motion as an ordinary LoRA
    convert.py lora published.safetensors lora.safetensors
                                                        a LoRA for CogVideoX in the names of diffusers, finetrainers,
                                                        peft or CogVideoX-Fun in those that ComfyUI's Load LoRA reads

Run it with the environment that ComfyUI runs in, or with $(python3 scripts/host.py --python).
"""

import argparse
import pickle
import sys
from pathlib import Path

import pack

# What torch.load raises for files that hold code, or are cut off, or are none.
DAMAGED = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError)


def unpickle(source: Path, target: Path) -> str:
    """Write the tensors of the pickled checkpoint ``source`` to ``target``. Only tensors and plain values are read."""
    import safetensors.torch
    import torch

    try:
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except DAMAGED as error:
        raise ValueError(f"{source.name} holds more than tensors, or is damaged, and is not opened: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{source.name} holds a {type(state).__name__}, not a state dict of tensors.")
    for wrapper in ("state_dict", "model", "module"):
        state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
    tensors = {key: value.clone().contiguous() for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{source.name} has no tensors at its top level; its keys: {', '.join(map(str, state))[:200]}")
    with pack.load_file("models/whole_file.py").whole(target) as partial:
        safetensors.torch.save_file(tensors, partial)
    return f"{len(tensors)} tensors"


def cogvideox(source: Path, target: Path) -> str:
    """Write the shards of a CogVideoX transformer in ``source`` (diffusers' layout) to one file in ComfyUI's names."""
    pack.load()
    from animate_anywhere.models import shards

    found = shards.read(source)
    if "blocks.0.norm1.linear.weight" not in found.tensors:
        raise ValueError(f"{source.name} is no CogVideoX transformer: it has no transformer_blocks.0.norm1.linear.")
    shards.to_native(found, target)
    return f"{len(found.tensors)} tensors of {len(found.paths)} files"


def diffusers(source: Path, target: Path) -> str:
    """Write the folder that ``source`` was made from by cogvideox()."""
    pack.load()
    from animate_anywhere.models import shards

    return f"{shards.to_folder(source, target)} files of weights"


def background_motion(source: Path, target: Path) -> str:
    """Write the background motion of the adapter ``source`` as a LoRA that the stock loaders read."""
    pack.load()
    import safetensors.torch
    from animate_anywhere.models import checkpoint

    header, groups = checkpoint.read(source)
    if "background_motion" not in groups:
        raise ValueError(f"{source.name} has no background motion; its groups: {', '.join(header.groups)}")
    state = groups["background_motion"]
    with pack.load_file("models/whole_file.py").whole(target) as partial:
        safetensors.torch.save_file(state, partial, metadata={"base": str(header.base), "licence": header.licence})
    return f"{len(state)} tensors, for {header.base}"


def lora(source: Path, target: Path) -> str:
    """Write the LoRA ``source`` in the names that the stock loaders read. adapter_config.json may tell its scale."""
    pack.load()
    import safetensors
    import safetensors.torch
    from animate_anywhere.models import lora_keys
    from animate_anywhere.models.whole_file import whole

    try:
        with safetensors.safe_open(source, framework="pt") as file:
            metadata, state = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{source.name} is not a whole safetensors file ({error}). Download it again.") from error
    config = lora_keys.config_in(metadata)
    if config is None:
        config = lora_keys.read_config(source.with_name("adapter_config.json"))
    try:
        converted = lora_keys.convert(state, config)
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from error
    with whole(target) as partial:
        safetensors.torch.save_file(converted.tensors, partial, metadata={"format": "pt"})
    return str(converted)


COMMANDS = {
    "unpickle": unpickle,
    "cogvideox": cogvideox,
    "diffusers": diffusers,
    "background-motion": background_motion,
    "lora": lora,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.target.exists():
        print(f"{arguments.target} exists already; choose another name", file=sys.stderr)
        return 1
    try:
        done = COMMANDS[arguments.command](arguments.source, arguments.target)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments.target}: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
