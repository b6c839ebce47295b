"""No two production classes share a name, so that a search for a name finds one class."""

import ast
from collections import defaultdict

from tests.kit.source import ROOT, production, statements


def _classes() -> dict[str, list[str]]:
    places = defaultdict(list)
    for path, text in production().items():
        for node in statements(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return places


def test_no_two_production_classes_share_a_name() -> None:
    shared = {name: places for name, places in _classes().items() if len(places) > 1}
    assert not shared, "give each class a specific name: " + "; ".join(
        f"{name}: {', '.join(places)}" for name, places in sorted(shared.items())
    )
