"""CSV: counting records finds every cell that spans lines, wherever the blocks of a file end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources import csv_table
from fourways_runtime.io.sources.csv_damage import QuoteCheck
from tests.kit.table_files import opened

BLOCK = 48
CELLS = ["a", "", "12", '5"', '"a"', '""', '"x,y"', '"q""q"', '"l1\nl2"', '"\r\n"']
DAMAGED = ['"open', 'mid"dle', '"a"b', 'a"', "\r"]


def some_text(rng: random.Random) -> str:
    """Write a table with short rows; every second one has a cell that may be damage."""
    wild = rng.choice([0, 0.05, 0.2])
    end = rng.choice(["\n", "\r\n"])
    rows = []
    for _ in range(rng.randrange(25)):
        kinds = [DAMAGED if rng.random() < wild else CELLS for _ in range(3)]
        rows.append(",".join(rng.choice(kind) for kind in kinds))
    lines = ["id,age,plan", *rows, *rng.choice([[], [""], ["", ""]])]
    return end.join(lines)


def by_every_quote(text: bytes) -> str | None:
    check = QuoteCheck("t.csv")
    try:
        check.feed(text)
        check.end()
    except SourceError as error:
        return str(error)
    return None


def by_reading(path: Path) -> str | None:
    try:
        list(opened(path, "CSV").chunks())
    except SourceError as error:
        return str(error).removeprefix(f"file://{path.parent}/")
    return None


@pytest.mark.thorough
def test_counting_finds_what_following_every_quote_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", BLOCK)
    path = tmp_path / "t.csv"
    rng = random.Random(11)
    damaged = 0
    for _ in range(120):
        text = some_text(rng).encode()
        path.write_bytes(text)
        expected, found = by_every_quote(text), by_reading(path)
        if found is not None and "longer than" in found:
            continue  # The table ends there; the quotes behind are not looked at.
        assert found == expected, text
        damaged += expected is not None
    assert damaged > 5


def test_quotes_are_not_followed_where_no_cell_spans_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", 4096)
    fed: list[int] = []
    feed = QuoteCheck.feed
    monkeypatch.setattr(
        QuoteCheck, "feed", lambda check, block: (fed.append(len(block)), feed(check, block))[1]
    )
    rows = "".join(f'"k{n}","{n}","plan ""{n}"""\n' for n in range(2000))
    path = tmp_path / "t.csv"
    path.write_text("id,age,plan\n" + rows)
    assert sum(chunk.batch.num_rows for chunk in opened(path, "CSV").chunks()) == 2000
    assert sum(fed) < 2 * 4096, "only the end of the file is followed"
