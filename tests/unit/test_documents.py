"""Links in the documents lead somewhere: to a file, and to a heading where they name one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from tools.installation import ROOT

DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*.md"))
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def links(text: str) -> Iterator[str]:
    for target in _LINK.findall(_CODE.sub("", text)):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a document's headings, as Git hosts make them."""
    if not path.is_file():
        return frozenset()
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return frozenset(found)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in links(path.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        other = (path.parent / unquote(name)).resolve() if name else path
        missing = bool(anchor) and other.suffix == ".md" and anchor not in anchors(other)
        if not other.exists() or missing:
            broken.append(target)
    assert broken == []
