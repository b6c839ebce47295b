"""No two production classes share a name, so that a search for a name finds one class."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("crds", "operator", "runtimes", "cli")

TEMPORARY: dict[str, int] = {
    "Batch": 2,
    "Outcome": 2,
    "Part": 2,
    "Sink": 2,
    "Source": 2,
    "TableSink": 2,
    "Worker": 2,
}
"""Names that are still shared, and by how many classes. It must become empty: never add to it."""


def _classes() -> dict[str, list[str]]:
    places = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return places


def test_no_two_production_classes_share_a_name() -> None:
    shared = {
        name: places for name, places in _classes().items() if len(places) > TEMPORARY.get(name, 1)
    }
    assert not shared, "give each class a specific name: " + "; ".join(
        f"{name}: {', '.join(places)}" for name, places in sorted(shared.items())
    )
