"""The house has three floors and the arrows run down: nodes/ -> models/, vision/; training/ -> models/, vision/."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOST_ONLY_IN_NODES = {
    "comfy_api",
    "folder_paths",
    "nodes",
    "server",
    "execution",
    "comfy_extras",
    "node_helpers",
    "latent_preview",
}
ALLOWED = {
    "models": {"torch", "einops", "safetensors", "comfy", "transformers", "spandrel", ".models"},
    # onnxruntime only inside a function, and only for ONNX files of artists who have it.
    "vision": {"torch", "numpy", "cv2", "scipy", "safetensors", "onnxruntime", ".vision"},
    "nodes": HOST_ONLY_IN_NODES
    | {"torch", "comfy", "numpy", "av", "filelock", "psutil", "safetensors", ".nodes", ".models", ".vision"},
    "training": {
        *("torch", "numpy", "cv2", "einops", "safetensors", "comfy", "accelerate", "diffusers", "av"),
        *(".training", ".models", ".vision"),
    },
}


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports; the pack's own as ".models", ".vision", ..."""
    package = path.relative_to(ROOT).parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1]
            inside = (*parents, *(node.module or "").split("."))
            names |= {"." + inside[0]} if inside[0] else {"." + alias.name for alias in node.names}
    return names - set(sys.stdlib_module_names)


@pytest.mark.parametrize("floor", sorted(ALLOWED))
def test_each_floor_imports_only_from_below(floor):
    wrong = {
        str(path.relative_to(ROOT)): extra
        for path in (ROOT / floor).rglob("*.py")
        if (extra := imports(path) - ALLOWED[floor])
    }
    assert not wrong


def test_the_root_lists_nodes_and_nothing_else():
    assert imports(ROOT / "__init__.py") == {"comfy_api", ".nodes"}
