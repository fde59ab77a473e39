"""config.json of networks of transformers: only what describes the architecture is taken, each field checked.

A configuration can do more than describe a network: name a backbone to be fetched from the internet, code to be run,
a quantization that needs other packages. So its fields are compared with those of the class's default configuration.
"""

from collections.abc import Mapping
from pathlib import Path

from . import checked_json
from .checked_json import shown

MAX_SIZE = 1 << 16  # of widths, counts and pixels alike
MAX_LAYERS = 256
MAX_LIST_LENGTH = 256
MAX_RATIO = 1e6
MAX_NAME_LENGTH = 16
ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu")
# Fields of the default configuration that say nothing about the network, or that are not the file's business.
IGNORED = frozenset({
    "_name_or_path", "architectures", "chunk_size_feed_forward", "dtype", "id2label", "initializer_range",
    "is_encoder_decoder", "label2id", "output_attentions", "output_hidden_states", "problem_type", "return_dict",
    "stage_names", "transformers_version", "rope_parameters",
})  # fmt: skip
# Fields that make transformers fetch or run something. They may be there, if they are empty.
FORBIDDEN = (
    *("auto_map", "backbone", "backbone_kwargs", "custom_pipelines", "quantization_config"),
    *("use_pretrained_backbone", "use_timm_backbone", "attn_implementation", "_attn_implementation"),
)


def checked_fields(path: Path, default: Mapping) -> dict:
    """Return the fields of the configuration at ``path`` that ``default`` has too, nested ones among them.

    Raises ValueError where a field has another type than in ``default``, is out of range, or forbidden.
    """
    found = checked_json.read_object(path, "its configuration")
    return _checked(found, default, path.name)


def _checked(found: Mapping, default: Mapping, where: str) -> dict:
    for name in FORBIDDEN:
        if found.get(name):
            raise ValueError(f"{where}: {name} is {shown(found[name])}, which would fetch or run something else")
    taken = {}
    for name, expected in default.items():
        if name in IGNORED or found.get(name) is None:
            continue
        taken[name] = _checked_value(found[name], expected, name, where)
    if default.get("model_type") != found.get("model_type", default.get("model_type")):
        raise ValueError(f"{where}: model_type is {shown(found['model_type'])}, not {default['model_type']!r}")
    return taken


def _checked_value(value: object, expected: object, name: str, where: str) -> object:
    if isinstance(expected, Mapping):
        if isinstance(value, Mapping):
            return _checked(value, expected, f"{where}, {name}")
    elif isinstance(expected, bool) or isinstance(value, bool):
        if isinstance(value, bool) and isinstance(expected, bool):
            return value
    elif isinstance(expected, str):
        if value == expected or (name.endswith("_act") and value in ACTIVATIONS):
            return value
    elif isinstance(expected, list | tuple):
        highest = MAX_LAYERS if name.startswith("blocks") else MAX_SIZE
        if type(value) is int and 0 <= value <= highest:
            return value  # one size for all
        fits = isinstance(value, list) and len(value) <= MAX_LIST_LENGTH
        if fits and all(_is_entry(each, highest) for each in value):
            return value
    elif isinstance(value, int):
        if -1 <= value <= (MAX_LAYERS if name.endswith("layers") else MAX_SIZE):
            return value
    elif isinstance(value, float) and isinstance(expected, float | int) and abs(value) <= MAX_RATIO:
        return value
    raise ValueError(f"{where}: {name} is {shown(value)}; something like {shown(expected)} is expected")


def _is_entry(value: object, highest: int) -> bool:
    """Whether ``value`` may be in a list: a size, a name as short as "stage12", or a list of sizes."""
    if isinstance(value, list):
        return len(value) <= MAX_LIST_LENGTH and all(type(each) is int and 0 <= each <= highest for each in value)
    if isinstance(value, str):
        return len(value) <= MAX_NAME_LENGTH and value.isalnum()
    return type(value) is int and 0 <= value <= highest
