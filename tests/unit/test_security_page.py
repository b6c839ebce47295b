"""docs/security.md: each rule names its test, and the test is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tools.installation import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
FILES = {path.name: path for path in sorted((ROOT / "tests").rglob("*")) if path.is_file()}
TARGETS = frozenset(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
_NAME = re.compile(r"`([^`]+)`")


def functions(text: str) -> list[str]:
    return re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)


def rows() -> Iterator[tuple[str, str]]:
    """Yield rule and test of each row of a table whose last column is ``test``."""
    test_column = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            test_column = False
        elif cells[-1] == "test":
            test_column = True
        elif test_column and not line.startswith("|-"):
            yield cells[0], cells[-1]


ROWS = list(rows())


def missing(told: str) -> Iterator[str]:
    """Yield what a cell names and is not there. ``…`` at the end stands for the rest of a name."""
    file = ""
    for name in _NAME.findall(told):
        if name.startswith("make "):
            if name.removeprefix("make ") not in TARGETS:
                yield name
            continue
        path, _, function = name.rpartition("::") if "::" in name else (name, "", "")
        if name.startswith("test_") and not name.endswith(".py") and "::" not in name:
            path, function = "", name
        if path and path != "…":
            file = path
            there = ROOT / path if "/" in path else FILES.get(path)
            if there is None or not there.exists():
                yield name
                continue
        if function:
            where = FILES[file.rpartition("/")[2]] if file else None
            known = functions(where.read_text("utf-8")) if where else EVERY
            start = function.removesuffix("…")
            if not any(
                one.startswith(start) if start != function else one == start for one in known
            ):
                yield name


EVERY = [
    one
    for name, path in FILES.items()
    if name.startswith("test_") and name.endswith(".py")
    for one in functions(path.read_text("utf-8"))
]


@pytest.mark.parametrize(("rule", "told"), ROWS, ids=[rule[:60] for rule, _ in ROWS])
def test_each_rule_names_a_test_that_is_there(rule: str, told: str) -> None:
    if told == "the same":
        return  # as the rule above it
    assert _NAME.search(told), "the rule names no test"
    assert list(missing(told)) == []


def test_a_name_that_is_not_there_is_found() -> None:
    assert len(ROWS) > 45
    assert list(missing("`tests/unit/test_nothing.py`")) == ["tests/unit/test_nothing.py"]
    assert list(missing("`test_callers.py::test_nothing`")) == ["test_callers.py::test_nothing"]
    assert list(missing("`test_callers.py::test_nothing_…`")) == ["test_callers.py::test_nothing_…"]
    assert list(missing("`test_of_no_file`, `make nothing`")) == ["test_of_no_file", "make nothing"]
