"""What the device agent's sources import of Fourways; tests/embedded/test_imports.py runs them."""

from __future__ import annotations

import ast
from pathlib import Path

import fourways_agent

AGENT = Path(fourways_agent.__path__[0])

RUNTIME_PARTS = {
    "bundle_layout",
    "errors",
    "folder_writer",
    "grpc_v2",
    "logs",
    "metrics",
    "model_watch",
    "process",
    "scoring",
    "v2",
}
"""What the agent imports of the runtime: scoring, the bundle layout, the protocol that its server
speaks (over HTTP and gRPC), and the base modules beneath them."""


def _imports() -> set[str]:
    """Return the absolute imports in the agent's sources, also those inside functions."""
    found = set()
    for file in AGENT.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= names if node.module == "fourways_runtime" else {node.module}
    return found


def test_the_agent_imports_these_parts_of_fourways_and_no_others() -> None:
    ours = {name for name in _imports() if name.startswith("fourways_")}
    parts = {name.split(".")[1] for name in ours if name.startswith("fourways_runtime.")}
    assert parts == RUNTIME_PARTS
    others = {name.split(".")[0] for name in ours} - {"fourways_runtime"}
    assert others == {"fourways_api", "fourways_http"}
