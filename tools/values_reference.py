"""The reference of the chart's values, from the comments in values.yaml: ``--check`` compares it.

A comment belongs to the value below it. A section's comment may explain the values in it, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fourways_api.crd import update_or_check

ROOT = Path(__file__).parents[1]
VALUES = ROOT / "charts" / "fourways" / "values.yaml"
PAGE = ROOT / "docs" / "reference" / "values.md"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the chart: its path, its default and what the comment above it says."""

    path: str
    default: str
    meaning: str


def values() -> list[Value]:
    """Return all values in the order of the file; a section has no default."""
    return list(_read(VALUES.read_text("utf-8").splitlines()))


def _read(lines: list[str]) -> Iterator[Value]:
    path: list[str] = []
    comment: list[str] = []
    for line in lines:
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
            continue
        if not text or text.startswith("- "):  # the default of a list, on lines of its own
            comment = []
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, rest = text.partition(":")
        path = [*path[:depth], name]
        yield Value(".".join(path), rest.strip(), " ".join(comment))
        comment = []


def explained(path: str, every: dict[str, Value]) -> bool:
    """Tell whether a value, or one above it, has a comment."""
    parts = path.split(".")
    return any(every[".".join(parts[: n + 1])].meaning for n in range(len(parts)))


def page() -> str:
    """Return the reference as Markdown."""
    lines = [
        "# Values of the chart",
        "",
        "Written by `make update` from the comments in `charts/fourways/values.yaml`. Helm refuses",
        "values that the chart's schema does not allow.",
        "",
        "| value | default | meaning |",
        "|---|---|---|",
    ]
    for each in values():
        if not each.default and not each.meaning:
            continue
        default = f"`{each.default}`" if each.default else ""
        meaning = each.meaning.replace("|", "\\|")
        lines.append(f"| `{each.path}` | {default.replace('|', chr(92) + '|')} | {meaning} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with --check report whether it is up to date."""
    return update_or_check(PAGE, page(), "tools.values_reference", "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
