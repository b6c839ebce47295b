"""Tables in CSV: bad cells and rows, damage that swallows rows, and other dialects."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources import csv_table
from fourways_runtime.io.sources.csv_damage import QuoteCheck
from tests.kit.contract_tables import csv, decoded, rows_of, table


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_bad_cell_or_a_ragged_row_costs_its_row_and_not_the_run(
    tmp_path: Path, name: str
) -> None:
    text = (
        "unread,plan,id,age\n"
        "1,p,007,1\n"
        "1,p,b,old\n"
        "1,p\n"
        '1,"two\nlines, one cell",c, 3\n'
        "1,p,d,4,5,6\n"
        '1,"",e,5\n'
        "1,,f,6\n"
        "1,p,g,\n"
        "1,p,h,8\n"
        "1,p,i,9,9\n"
    )
    good, told = decoded(csv(tmp_path, text, name))
    assert good == {
        0: ("007", 1, "p"),
        3: ("c", 3, "two\nlines, one cell"),
        5: ("e", 5, ""),
        8: ("h", 8, "p"),
    }
    assert told == [
        "1: age: 'old' is not a whole number",
        "2: row: 2 cells instead of 4",
        "4: row: 6 cells instead of 4",
        "6: plan: missing",
        "7: age: missing",
        "9: row: 5 cells instead of 4",
    ]


def test_rows_are_numbered_through_many_blocks_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", 256)
    expected, bad, position = {}, [], 0
    for file in range(2):
        lines = ["id,age,plan"]
        for row in range(200):
            if row % 37 in (0, 1) or row == 199:
                lines.append("too,few" if row % 2 else "one,too,many,cells")
                bad.append(position)
            else:
                lines.append(f"k{position},{row},p")
                expected[position] = (f"k{position}", row, "p")
            position += 1
        csv(tmp_path, "\n".join(lines) + "\n", f"{file}.csv")
    good, told = decoded(tmp_path)
    assert good == expected
    assert [int(line.partition(":")[0]) for line in told] == bad


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,age\na,1\n", "column plan is missing; the file has id, age"),
        ("id,age,plan,age\n", "column age occurs 2 times"),
    ],
)
def test_a_csv_that_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SourceError, match=r"t\.csv") as error:
        rows_of(csv(tmp_path, text), "CSV")
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["id,age,plan\n", "id,age,plan", "", "\n"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_header_alone_or_nothing_at_all_has_no_rows(tmp_path: Path, text: str, name: str) -> None:
    assert rows_of(csv(tmp_path, text, name), "CSV") == []


def test_an_empty_part_beside_others_has_no_rows(tmp_path: Path) -> None:
    csv(tmp_path, "", "a.csv")
    csv(tmp_path, "id,age,plan\nk,1,p\n", "b.csv")
    assert decoded(tmp_path) == ({0: ("k", 1, "p")}, [])


def test_a_header_in_another_encoding_is_named_as_that(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id,age,plan,Größe\na,1,p,5\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"t\.csv: the header is not UTF-8"):
        rows_of(path, "CSV")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Arrow's own
def test_a_row_of_another_length_and_encoding_is_named_as_that(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id,age,plan\na,1,p\nGröße,2\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"a row with 2 cells instead of 3 is not UTF-8"):
        rows_of(path, "CSV")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_utf16_is_named_as_that(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id,age,plan\na,1,p\n".encode(encoding))
    with pytest.raises(SourceError, match=r"UTF-16\)[;:] convert the file to UTF-8"):
        rows_of(path, "CSV")


SWALLOWED = [
    pytest.param('k2,2,p\n"k3,3,p\nk4,4,p\nk5,5,p\n', 3, id="first cell, to the end"),
    pytest.param('k2,2,p\nk3,3,"p\nk4,4,p\nk5,5,p\n', 3, id="last cell, to the end"),
    pytest.param('k2,2,p\nk3,"3,p\nk4,4,p\nk5,5,p\n', 3, id="a number, to the end"),
    pytest.param('"k2,2,p\nk3,3,p\n"k4",4,p\nk5,5,p\n', 2, id="too few cells, closed further down"),
    pytest.param('k2,"2,p\nk3,3,p\n"k4,5,p\nk6,6,p\n', 2, id="a number, closed further down"),
]
"""Rows behind two good ones, and the row (from 0) in which a quote opens."""


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize(("rows", "row"), SWALLOWED)
def test_rows_that_a_quote_swallows_are_not_one_bad_row(
    tmp_path: Path, rows: str, row: int, name: str
) -> None:
    path = csv(tmp_path, "id,age,plan\nk0,0,p\nk1,1,p\n" + rows, name)
    with pytest.raises(SourceError, match=rf"{name}: line {row + 2}: the quote that opens there"):
        decoded(path)


@pytest.mark.parametrize("end", ["\n", ""])
def test_quotes_that_close_are_read(tmp_path: Path, end: str) -> None:
    body = 'id,age,plan\n"a",1,"two\nlines"\n"b","2","say ""so"""\nc,3,5" pipe\nd," 4\n","x"'
    good, told = decoded(csv(tmp_path, body + end))
    assert {key: plan for key, _, plan in good.values()} == {
        "a": "two\nlines",
        "b": 'say "so"',
        "c": '5" pipe',
        "d": "x",
    }
    assert told == []


@pytest.mark.parametrize("form", ["CSV", "JSONLines"])
def test_a_block_of_zeros_is_damage_and_not_one_bad_row(tmp_path: Path, form: str) -> None:
    if form == "CSV":
        path, rows = tmp_path / "t.csv", b"id,age,plan\nk0,0,p\n"
    else:
        path, rows = tmp_path / "t.jsonl", b'{"id":"k","age":0,"plan":"p"}\n' * 2
    path.write_bytes(rows + bytes(4096) + rows)
    with pytest.raises(SourceError, match="line 3 contains NUL bytes: the file is damaged"):
        list(table(path, form).chunks())


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz"])
def test_a_compressed_file_that_was_cut_is_damaged(tmp_path: Path, name: str) -> None:
    rng = random.Random(1)
    if name == "t.csv.gz":
        rows = ["id,age,plan", *(f"k{n},{rng.randrange(10**9)},p" for n in range(50_000))]
    else:
        rows = [f'{{"id":"k{n}","age":{rng.randrange(10**9)},"plan":"p"}}' for n in range(50_000)]
    whole = gzip.compress("\n".join(rows).encode())
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    form = "CSV" if name == "t.csv.gz" else "JSONLines"
    with pytest.raises(SourceError, match="Truncated compressed stream"):
        list(table(tmp_path / name, form).chunks())


def test_a_row_longer_than_a_block_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", 1000)
    body = "id,age,plan\n" + '"k0,0,p\n' + "k1,1,p\n" * 500
    with pytest.raises(SourceError, match="longer than 1000 bytes; check for a quote"):
        decoded(csv(tmp_path, body))


def quotes(text: str, size: int, commas: int = 0) -> str | None:
    """Return what is said of a file that is read ``size`` bytes at a time."""
    check = QuoteCheck("t", commas=commas)
    try:
        for start in range(0, len(text), size):
            check.feed(text[start : start + size].encode())
        check.end()
    except SourceError as error:
        return ": ".join(str(error).split(": ")[:2])
    return None


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('a,"b"\n"c",d\n', None),
        ('"a""b","",""""\n', None),
        ('5" pipe,6"\n"x\ny",z', None),
        ('"sloppy"text,b\n"c",d\n', None),
        ('"a","b\n""quoted"" text\n"\n', None),
        ('a,b\n"c,d\ne,f\n', "t: line 2"),
        ('a,b\n5" x,"c\ne,f\n', "t: line 2"),
        ('a,b\n"c,d\n"e",f\n', "t: line 2"),
        ('a\n"b""\nc\n', "t: line 2"),
        ('"x\ny"\n"', "t: line 3"),
        ('a,b\nc,"say \\"hi\\""\n', "t: line 2"),
        ('a\n"x"\n"\\"hi\\" ok"\n', "t: line 3"),
        ('a,b\n"C:\\","\\""x\\"""\nsay \\"hi\\",x\n', None),
    ],
)
def test_quotes_are_followed_wherever_blocks_end(size: int, text: str, told: str | None) -> None:
    assert quotes(text, size) == told


ROWS = "".join(f"k{n},{n},p\n" for n in range(12))
VERSE = "".join(f"line {n}, and so on\n" for n in range(12))


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'a,1,p\n"b,2,p\n{ROWS}c,3,6"\nd,4,p\n', "t: line 2"),
        (f'a,1,"say ""hi"" {ROWS}c,3,6"\nd,4,p\n', "t: line 1"),
        (f'"a",1,p\n"b\nc",2,"{ROWS}c,3,6"\nd,4,p\n', "t: line 3"),
        (f'a,1,"{VERSE}"\nb,2,p\n', None),
        (f'a,1,"{ROWS[:60]}"\nb,2,p\n', None),
        (f'a,1,"{ROWS[:60]}no row\n{ROWS[:60]}"\nb,2,p\n', None),
        (f"{ROWS}{ROWS}", None),
    ],
)
def test_a_closed_cell_that_swallowed_rows_is_damage(
    text: str, told: str | None, slow: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slow:
        monkeypatch.setattr(QuoteCheck, "_plain", lambda *_: False)
    assert quotes(text, size, commas=2) == told


def test_quotes_of_another_dialect_are_named_and_not_read_as_text(tmp_path: Path) -> None:
    path = csv(tmp_path, 'id,age,plan\na,1,p\nb,2,"say \\"hi\\" ok"\nc,3,p\n')
    with pytest.raises(SourceError, match=r'line 3: a quote inside a cell is written \\"; write'):
        decoded(path)


def test_rows_swallowed_between_two_stray_quotes_fail_the_file(tmp_path: Path) -> None:
    rows = [f"k{n},{n},p\n" for n in range(1000)]
    rows[50], rows[950] = '"k50,50,p\n', 'k950,950,6"\n'
    with pytest.raises(SourceError, match=r"line 52: the quote .* lines that look like rows"):
        decoded(csv(tmp_path, "id,age,plan\n" + "".join(rows)))


@pytest.mark.thorough
def test_quotes_are_followed_alike_fast_and_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    texts = ["".join(rng.choices('"",\na', k=rng.randrange(1, 30))) for _ in range(3000)]
    fast = [quotes(text, 7) for text in texts]
    monkeypatch.setattr(QuoteCheck, "_plain", lambda *_: False)
    assert [quotes(text, 7) for text in texts] == fast
    assert None in fast
    assert len(set(fast)) > 3


@pytest.mark.parametrize(("sign", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical")])
def test_another_separator_than_the_comma_is_named(tmp_path: Path, sign: str, word: str) -> None:
    body = "id,age,plan\na,1,p\n".replace(",", sign)
    with pytest.raises(SourceError, match=f"may be separated by {word}.*: write commas"):
        decoded(csv(tmp_path, body))
