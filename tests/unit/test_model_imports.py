"""What the runtimes may not import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fourways_runtime

SOURCE = Path(fourways_runtime.__file__).parent
FORBIDDEN = {"pickle", "cPickle", "_pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve"}
LOADERS = {("numpy", "load"), ("np", "load"), ("torch", "load"), ("pandas", "read_pickle")}


def breaches(source: str) -> list[str]:
    """Return what a source file does that can run code found in data."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found += [name for name in names if tuple(name.rsplit(".", 1)) in LOADERS]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # importlib.import_module("pickle") is an import too.
            names = [node.value] if node.value in FORBIDDEN else []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in LOADERS:
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append("allow_pickle")
        found += [name for name in names if name.partition(".")[0] in FORBIDDEN]
    return found


def test_no_module_of_the_runtimes_reads_code_from_data() -> None:
    sources = {path: path.read_text() for path in SOURCE.rglob("*.py")}
    assert len(sources) > 100
    found = {str(path.relative_to(SOURCE)): breaches(text) for path, text in sources.items()}
    assert {path: each for path, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, joblib.numpy_pickle",
        "from dill import loads",
        "def f():\n    import marshal",
        "import importlib\nimportlib.import_module('shelve')",
        "np.load(path)",
        "from numpy import load",
        "read(path, allow_pickle=True)",
        "torch.load(path)",
    ],
)
def test_the_walk_finds_what_it_looks_for(source: str) -> None:
    assert breaches(source)
