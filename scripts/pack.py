"""Import the pack outside a running ComfyUI, for tests, tools and benchmarks.

The pack's folder name is no Python identifier and its nodes/ would hide the host's nodes.py, so it is loaded by path
under one fixed name, with ComfyUI first on sys.path, as the host itself loads custom nodes.
"""

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

NAME = "animate_anywhere"
ROOT = Path(__file__).resolve().parent.parent


def host_root() -> str:
    """ComfyUI's folder: the one that scripts/host.py keeps, or another one named by ANIMATE_ANYWHERE_COMFYUI."""
    named = os.environ.get("ANIMATE_ANYWHERE_COMFYUI")
    if named:
        return named
    command = [sys.executable, ROOT / "scripts" / "host.py", "--root"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def load(cpu: bool = True) -> ModuleType:
    """The pack as the module ``animate_anywhere``; afterwards ``from animate_anywhere.models import dit`` works.

    ComfyUI is set up as by ``main.py --cpu`` (without ``cpu``: as by ``main.py``). Call it before importing ``comfy``.
    """
    if NAME in sys.modules:
        return sys.modules[NAME]
    sys.path.insert(0, host_root())
    arguments, sys.argv = sys.argv, sys.argv[:1]  # the host parses sys.argv when it is imported; these are not for it
    from comfy.cli_args import args

    args.cpu = cpu
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    sys.argv = arguments
    return module


@cache
def load_file(path: str) -> ModuleType:
    """Return the module at ``path`` in the pack, loaded by itself: for those that need nothing but
    the standard library, where the host and torch would take seconds to import."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
