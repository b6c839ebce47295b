"""The only module that writes to the terminal, so that foreign text is made safe in one place.

All text passes through ``displayed``, which escapes control characters and limits lengths. None of
it is parsed as rich's markup, because everything is printed as :class:`rich.text.Text`. A styled
text is a pair of text and style. ``tests/unit/test_cli_terminal.py`` checks that no other module of
the package prints or imports rich's consoles, tables, trees or markup.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fourways_api.display import DISPLAY_LIMIT, displayed, json_displayed

PIPE_WIDTH = 16_384
"""Columns if the output is not a terminal: a reader of a pipe gets each row on one line."""

FOLD_WIDTH = 8
"""Minimum width of a column that folds."""

NAME_LIMIT = 300
"""Maximum number of characters of a name; a Kubernetes name has at most 253."""

Part = str | tuple[str, str] | Text
"""A text, a text with its style, or a result of :func:`words`."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A table's column. ``copied``: names for other commands, which are never cut or wrapped."""

    title: str
    copied: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """A node of a tree: its label and its branches."""

    label: tuple[Part, ...]
    branches: list[Branch] = field(default_factory=list)

    def add(self, *label: Part) -> Branch:
        """Add a branch below this one, and return it."""
        branch = Branch(label)
        self.branches.append(branch)
        return branch


def stdout() -> Console:
    """Return a console on standard output."""
    return _console(None)


def words(*parts: Part, limit: int = DISPLAY_LIMIT, lines: bool = False) -> Text:
    """Join texts to one styled line; escape hidden characters, and do not parse markup."""
    text = Text()
    for part in parts:
        if isinstance(part, Text):
            text.append_text(part)
            continue
        content, style = (part, "") if isinstance(part, str) else part
        text.append(displayed(content, limit, lines=lines), style)
    return text


def say(*parts: Part) -> None:
    """Print a line to standard output."""
    stdout().print(words(*parts), soft_wrap=True)


def warn(*parts: Part) -> None:
    """Print a message of one or more lines to standard error."""
    Console(stderr=True).print(words(*parts, lines=True), soft_wrap=True)


def table(headings: Sequence[Heading | str], rows: Iterable[Sequence[Part]]) -> Table:
    """Return a table; in a narrow terminal, columns that are not ``copied`` fold."""
    columns = [h if isinstance(h, Heading) else Heading(h) for h in headings]
    made = Table(box=None)
    cells = [
        [
            words(cell, limit=NAME_LIMIT if column.copied else DISPLAY_LIMIT)
            for column, cell in zip(columns, row, strict=True)
        ]
        for row in rows
    ]
    least = 0
    for index, column in enumerate(columns):
        title = words(column.title)
        width = max(title.cell_len, *(row[index].cell_len for row in cells), 0)
        # rich cuts even columns that must not wrap, but never below their minimum width.
        least_of_column = width if column.copied else min(width, max(title.cell_len, FOLD_WIDTH))
        least += least_of_column + 2
        made.add_column(title, overflow="fold", no_wrap=column.copied, min_width=least_of_column)
    made.min_width = least
    for row in cells:
        made.add_row(*row)
    return made


def print_table(content: Table) -> None:
    """Print a table of :func:`table`; one that is too wide even when folded overflows."""
    console = stdout()
    if (content.min_width or 0) > console.width:
        console = _console(content.min_width)
    console.print(content, crop=False)


def print_tree(root: Branch) -> None:
    """Print a tree."""
    tree = Tree(words(*root.label), guide_style="dim")
    _grow(tree, root)
    stdout().print(tree)


def print_json(data: Any) -> None:
    """Print plain data as JSON."""
    text = orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()
    _write(json_displayed(text) + "\n")


def print_yaml(*documents: Any) -> None:
    """Print plain data as YAML documents."""
    from fourways_api import dump_yaml

    _write(dump_yaml(*documents))


def print_names(names: Iterable[str]) -> None:
    """Print one name per line, for other commands."""
    for name in names:
        _write(displayed(name, NAME_LIMIT) + "\n")


def open_closed_streams() -> None:
    """Give a process that was started with closed streams (``>&-``) ones that lead nowhere."""
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()


def discard_stdout() -> None:
    """Forget what standard output holds and could not write: the end of the process would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _console(width: int | None) -> Console:
    return Console(width=width or (None if sys.stdout.isatty() else PIPE_WIDTH))


def _grow(tree: Tree, branch: Branch) -> None:
    for below in branch.branches:
        _grow(tree.add(words(*below.label)), below)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
