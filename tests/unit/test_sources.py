"""Tables: which files, which columns, in what order, and what is said when one is not there."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_api.base import SKIP_RULES
from fourways_runtime.errors import FetchFailed, FetchRefused, SourceError
from fourways_runtime.io.sources import BATCH_ROWS, csv_table, open_table
from fourways_runtime.io.sources.csv_damage import QuoteCheck
from fourways_runtime.io.sources.watermarks import older
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.splits import Newer
from tests.kit.fetch_servers import ranged, serving, status
from tests.kit.table_files import keys, opened

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "age", "type": "int32"}, {"name": "plan", "type": "string"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)
GOOD = {"id": ["a", "b"], "age": [1, 2], "plan": ["p", "q"], "unread": [0.5, 0.5]}


def parquet(path: Path, columns: dict[str, Any] | None = None, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(GOOD if columns is None else columns), path, **how)
    return path


def table(uri: str | Path, form: str = "Parquet", **paths: str) -> Any:
    text = uri if isinstance(uri, str) else f"file://{uri}"
    source = BatchSource.model_validate({"uri": text, "format": form}, context=SKIP_RULES)
    policy = FetchPolicy(timeout_seconds=5.0)
    opened = open_table(source, CONTRACT, policy=policy, paths=Paths(**paths))
    opened.splits(BATCH_ROWS)  # where the whole table is looked at
    return opened


def rows_of(uri: str | Path, form: str = "Parquet", **paths: str) -> list[tuple[Any, ...]]:
    """Return (position, row) of each row, and (position, None) of each that was no row."""
    found: list[tuple[Any, ...]] = []
    for chunk in table(uri, form, **paths).chunks():
        found += zip(chunk.rows.tolist(), chunk.batch.to_pylist(), strict=True)
        found += [(reject.row, str(reject)) for reject in chunk.rejects]
    return sorted(found, key=lambda row: int(row[0]))


def test_only_the_columns_of_the_contract_are_read(tmp_path: Path) -> None:
    assert rows_of(parquet(tmp_path / "t.parquet")) == [
        (0, {"id": "a", "age": 1, "plan": "p"}),
        (1, {"id": "b", "age": 2, "plan": "q"}),
    ]


@pytest.mark.parametrize("where", ["", "/", "/*.parquet", "/part-?.parquet"])
def test_a_folder_or_a_glob_is_one_table_in_the_order_of_its_names(
    tmp_path: Path, where: str
) -> None:
    for number in (2, 0, 1):
        columns = {"id": [f"k{number}"], "age": [number], "plan": ["p"]}
        parquet(tmp_path / f"part-{number}.parquet", columns)
    if not where.endswith("parquet"):
        (tmp_path / "_SUCCESS").touch()
        (tmp_path / ".part-0.parquet.crc").touch()
        (tmp_path / "README.md").write_text("not a table")
        parquet(tmp_path / "_temporary" / "part-9.parquet")
    opened = table(f"file://{tmp_path}{where}")
    assert opened.total_rows == 3
    assert [(row, value["id"]) for row, value in rows_of(f"file://{tmp_path}{where}")] == [
        (0, "k0"),
        (1, "k1"),
        (2, "k2"),
    ]


def test_a_glob_reads_the_folders_that_spark_names_like_files(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet/part-0.parquet", "old/c.parquet"):
        parquet(tmp_path / name, {"id": [name], "age": [1], "plan": ["p"]})
    found = [value["id"] for _, value in rows_of(f"file://{tmp_path}/*.parquet")]
    assert found == ["a.parquet", "b.parquet/part-0.parquet"]


def test_an_ending_in_capitals_is_the_same_ending(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,age,plan\na,1,p\n")
    (tmp_path / "B.CSV").write_text("id,age,plan\nb,2,p\n")
    (tmp_path / "c.Csv.GZ").write_bytes(gzip.compress(b"id,age,plan\nc,3,p\n"))
    assert sorted(value["id"] for _, value in rows_of(tmp_path, "CSV")) == [b"a", b"b", b"c"]


def test_batches_stay_small_and_rows_are_numbered_through(tmp_path: Path) -> None:
    count = 2 * BATCH_ROWS + 5
    columns = {"id": [str(n) for n in range(count)], "age": [1] * count, "plan": ["p"] * count}
    opened = table(parquet(tmp_path / "t.parquet", columns, row_group_size=BATCH_ROWS + 3))
    chunks = list(opened.chunks())
    assert opened.total_rows == count
    assert max(chunk.batch.num_rows for chunk in chunks) <= BATCH_ROWS
    assert [row for chunk in chunks for row in chunk.rows] == list(range(count))
    assert all(
        str(row) == key.as_py()
        for chunk in chunks
        for row, key in zip(chunk.rows[:3], chunk.batch.column("id")[:3], strict=True)
    )


def test_a_claim_is_read_beneath_its_mount_and_left_by_no_link(tmp_path: Path) -> None:
    parquet(tmp_path / "volumes" / "data" / "t.parquet")
    secret = parquet(tmp_path / "elsewhere" / "t.parquet")
    root = str(tmp_path / "volumes")
    assert len(rows_of("pvc://data/t.parquet", volumes_root=root)) == 2
    (tmp_path / "volumes" / "data" / "link.parquet").symlink_to(secret)
    assert len(rows_of("pvc://data/*.parquet", volumes_root=root)) == 2
    for uri in ("pvc://data/link.parquet", "pvc://data/../../elsewhere/t.parquet"):
        with pytest.raises(FetchRefused):
            rows_of(uri, volumes_root=root)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"id": ["a"], "age": [1]}, "t.parquet: column plan is missing; the file has id, age"),
        (
            {"id": ["a"], "age": ["1"], "plan": ["p"]},
            "column age is string, the contract says int32",
        ),
        ({"id": [1], "age": [1], "plan": ["p"]}, "column id is int64, the contract says string"),
    ],
)
def test_a_missing_or_retyped_column_is_named(
    tmp_path: Path, columns: dict[str, Any], told: str
) -> None:
    with pytest.raises(SourceError) as error:
        table(parquet(tmp_path / "t.parquet", columns))
    assert told in str(error.value)


def test_the_last_file_of_many_is_checked_before_the_first_is_read(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    parquet(tmp_path / "b.parquet", {"id": ["a"]})
    with pytest.raises(SourceError, match=r"^b\.parquet: column age is missing"):
        table(tmp_path)


@pytest.mark.parametrize("form", ["Parquet", "CSV"])
def test_what_is_not_there_is_named(tmp_path: Path, form: str) -> None:
    with pytest.raises(SourceError, match="no such file"):
        table(tmp_path / "gone", form)
    with pytest.raises(SourceError, match="no file has this name"):
        table(f"file://{tmp_path}/*.gone", form)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"no file that ends with \.\w+; there is notes\.txt"):
        table(tmp_path, form)


def test_a_file_that_is_damaged_or_none_is_named_and_not_retried(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(SourceError, match=r"t\.parquet"):
        table(tmp_path / "t.parquet")
    count = 50_000
    columns = {"id": [str(n) for n in range(count)], "age": [1] * count, "plan": ["p"] * count}
    file = parquet(tmp_path / "u.parquet", columns, row_group_size=10_000, compression="zstd")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 2000] = b"\xff" * 2000
    file.write_bytes(raw)
    with pytest.raises(SourceError, match=r"u\.parquet"):
        rows_of(file)


def test_a_table_over_http_is_read_by_ranges_and_a_failing_server_is_worth_another_try() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table(GOOD), buffer)
    with serving(ranged(buffer.getvalue())) as server:
        assert len(rows_of(f"{server.url}/t.parquet")) == 2
    with serving(status(404)) as server, pytest.raises(SourceError):
        rows_of(f"{server.url}/t.parquet")
    source = BatchSource.model_validate({"uri": "http://127.0.0.1:1/t.parquet"})
    policy = FetchPolicy(timeout_seconds=0.1)
    with pytest.raises(FetchFailed):
        open_table(source, CONTRACT, policy=policy, paths=Paths()).splits(1)


# ---------------------------------------------------------------- CSV


def csv(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    raw = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    return tmp_path / name


def decoded(path: Path) -> tuple[dict[int, Any], list[str]]:
    decoder, good, told = Decoder(CONTRACT), {}, []
    for chunk in table(path, "CSV").chunks():
        records, rejects = decoder.decode(chunk.batch, chunk.rows)
        good |= {
            int(row): (key, int(age), plan)
            for row, key, age, plan in zip(
                records.rows,
                records.keys,
                records.columns["age"],
                records.columns["plan"],
                strict=True,
            )
        }
        told += [f"{reject.row}: {reject}" for reject in (*chunk.rejects, *rejects)]
    return good, sorted(told, key=lambda line: int(line.partition(":")[0]))


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


@pytest.mark.parametrize("before", ["", " ", "\r\n", "\ufeff", '{"id":"b","age":2,"plan":"p"}\n'])
@pytest.mark.parametrize("end", ["", "\n", '\n{"id":"a","age":1,"plan":"p"}\n', "{}\n"])
def test_a_line_that_is_null_is_a_bad_row_wherever_a_block_begins(
    tmp_path: Path, before: str, end: str
) -> None:
    """Arrow ends the process over it if it is the first line that it is given."""
    path = tmp_path / "t.jsonl"
    path.write_text(f"{before}null{end}", encoding="utf-8")
    told = [text for _, text in rows_of(path, "JSONLines") if isinstance(text, str)]
    assert len(told) == 1
    assert "it is not" in told[0]


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"x","age":1}{"id":"y","age":2}',
        '{"id":"x","age":1} , {"id":"y","age":2}',
        '{"id":"x","age":1}\r{"id":"y","age":2}\r{"id":"z","age":3}\r',
    ],
)
def test_a_line_of_several_objects_swallows_rows_and_is_no_reject(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"id":"a","age":1,"plan":""}}\n{line}\n{{"id":"b","age":2}}\n', newline="")
    with pytest.raises(SourceError, match="line 2 holds more than one object"):
        rows_of(path, "JSONLines")
    path.write_text('{"id":"a","age":1,"plan":""}\n{"id":"x","age":1} junk {"id":"y"}\n')
    assert [text for _, text in rows_of(path, "JSONLines") if isinstance(text, str)]


@pytest.mark.parametrize("body", ['[{"id":"a"}]', '\ufeff [\n{"id":"a"},\n{"id":"b"}\n]\n'])
def test_a_json_array_is_not_json_lines(tmp_path: Path, body: str) -> None:
    (tmp_path / "t.jsonl").write_text(body)
    with pytest.raises(SourceError, match="is a JSON array; write one object per line"):
        list(table(tmp_path / "t.jsonl", "JSONLines").chunks())


@pytest.mark.parametrize("name", ["b.csv.gz", "b.csv"])
def test_a_fault_of_reading_names_the_file_and_is_raised_where_the_rows_are_used(
    tmp_path: Path, name: str
) -> None:
    """Not on Arrow's threads: one of them would be lost with each such fault."""
    rows = "id,age,plan\n" + "".join(f"k{n},{n % 90},p\n" for n in range(1000))
    raw = gzip.compress(rows.encode())[:-20] if name.endswith(".gz") else rows.encode() + b"\0\0\n"
    (tmp_path / "a.csv").write_text("id,age,plan\na,1,p\n")
    (tmp_path / name).write_bytes(raw)
    for _ in range(20):
        with pytest.raises(SourceError, match=name):
            list(table(tmp_path, "CSV").chunks())


def test_a_watermark_that_only_uint64_holds_is_compared_exactly(tmp_path: Path) -> None:
    marks = [2**63 + 4, 2**63 + 5, 2**63 + 6]
    file = tmp_path / "t.parquet"
    columns: dict[str, Any] = {"id": ["a", "b", "c"], "age": [1, 2, 3], "plan": ["p"] * 3}
    columns["u"] = pa.array(marks, pa.uint64())
    pq.write_table(pa.table(columns), file)
    opened_table = opened(file, more=("u",))
    found = keys(opened_table, opened_table.splits(10), Newer("u", marks[1]))
    assert found == ["b", "c"]
    assert older(pa.array(marks, pa.uint64()), marks[1]).tolist() == [True, False, False]
