"""Imports go down, modules stay short, optional packages stay optional."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vggt_edge

ROOT = Path(vggt_edge.__file__).parent
# A folder counts as one. Fractions order the modules of one topic. What is new needs a floor.
FLOORS = {
    "errors": 0, "geometry": 0, "anchors": 0, "covisibility": 0, "bootstrap": 0,
    "types": 0.1, "hardware": 0.1, "files": 0.1,
    "pixels": 0.2, "recording": 0.2,
    "recipe": 0.1, "kernels": 0.2, "metrics": 0.2,
    "sparse_model": 0.2, "sparse_plan": 0.2, "sparsity": 0.3,
    "distribute": 0.3,
    "model": 1,
    "hub": 2, "memory": 2, "preprocess": 2, "worlds": 2,
    "checkpoint": 2.1, "pictures": 2.1,
    "weights": 2.2, "video": 2.2,
    "sources": 2.3, "retrieval": 2.3,
    "images": 2.4, "live": 2.5, "live_video": 2.5, "attention": 2.9,
    "predict": 3, "stream": 3.1,
    "outputs": 4, "scene": 4,
    "compress": 5, "evaluate": 5, "export": 5, "train": 5,
    "api": 6,
    "cli": 6.1,
    "__main__": 6.2, "__init__": 6.2,
}  # fmt: skip
OPTIONAL = {"av", "pillow_heif", "OpenEXR", "rerun", "matplotlib", "huggingface_hub"}
OPTIONAL |= {"pycolmap", "ray", "mcp", "scipy"}
OPTIONAL |= {"litert_torch", "ai_edge_quantizer", "ai_edge_litert"}
MODULES = {path.relative_to(ROOT).with_suffix("").parts: path for path in ROOT.rglob("*.py")}


def imports(module: tuple[str, ...]) -> Iterator[tuple[str, list[str], bool]]:
    """Place, full dotted name in parts, and whether it waits inside a function."""
    tree = ast.parse(MODULES[module].read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    waiting = {inner for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        prefix = []
        if isinstance(node, ast.ImportFrom):
            prefix = ["vggt_edge", *module][: -node.level] if node.level else []
            prefix += node.module.split(".") if node.module else []
        for alias in node.names:
            place = f"{MODULES[module]}:{node.lineno}"
            yield place, [*prefix, *alias.name.split(".")], node in waiting


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_module(module):
    own = module[0]
    assert own in FLOORS, f"{own} has no floor yet"
    for place, (package, *names), waits in imports(module):
        assert waits or package not in OPTIONAL, f"{place}: optional, import it where it is used"
        if package == "vggt_edge" and names != ["__version__"]:
            # A name that is no module is one the package itself offers.
            target = names[0] if names and names[0] in FLOORS else "__init__"
            assert target == own or FLOORS[target] < FLOORS[own], f"{place}: imports {target}"
    lines = len(MODULES[module].read_text().splitlines())
    assert lines < 400, f"{MODULES[module]} has {lines} lines"


def test_every_floor_has_somebody():
    assert FLOORS.keys() == {module[0] for module in MODULES}


def test_importing_the_package_is_cheap():
    code = "import sys, vggt_edge; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert "vggt_edge" in loaded
    assert not loaded & {*OPTIONAL, "torch", "numpy", "PIL", "typer", "vggt_edge.outputs"}
