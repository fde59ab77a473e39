"""Import the pack outside a running ComfyUI, for tests, tools and benchmarks.

The pack's folder name is no Python identifier and its nodes/ would hide the host's nodes.py, so it is loaded by path
under one fixed name, with ComfyUI first on sys.path, as the host itself loads custom nodes.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

NAME = "animate_anywhere"
ROOT = Path(__file__).resolve().parent.parent


def use_host(root: str | Path, cpu: bool = True) -> None:
    """Put ComfyUI's folder ``root`` first on sys.path and set it up as ``main.py --cpu`` would.

    Must run before anything imports ``comfy``.
    """
    root = str(root)
    if root not in sys.path:
        sys.path.insert(0, root)
    from comfy.cli_args import args

    args.cpu = cpu


def load() -> ModuleType:
    """The pack as the module ``animate_anywhere``; afterwards ``from animate_anywhere.models import dit`` works."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module
