"""The project's own source code, as the tests that judge it read it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCTION = ("crds", "operator", "runtimes", "cli")
"""The folders of what is released."""


@cache
def production() -> dict[Path, str]:
    """Return the text of every production module."""
    return {
        path: path.read_text("utf-8")
        for package in PRODUCTION
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """Yield every statement, however deep; unlike ``ast.walk``, look into no expression.

    Classes, functions and imports are statements, and four of five nodes are not.
    """
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            # A lambda and a conditional expression have a body that is no list.
            inner = getattr(node, part, None)
            if isinstance(inner, list):
                left += inner
        if isinstance(node, ast.stmt):
            yield node
