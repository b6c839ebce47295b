"""Tables of several files, and files written by hand: damaged, or not what their name says."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from .cases import MISSING
from .writers import CSV, JSON, PARQUET, WRITERS


@dataclass(frozen=True, slots=True)
class Layout:
    """A folder, how it is written, and what is right."""

    name: str
    form: str
    write: Callable[[Path], None]
    right: Any
    """The outcomes by key, or a part of what is said of the table."""

    kind: str = "int64"
    nullable: bool = False
    events: list[bytes] | None = None
    """The same cells as events, if there are any."""


def _table(keys: list[str], values: list[Any] | None, to: Any = None, **more: list[Any]) -> Any:
    columns: dict[str, Any] = {"id": keys}
    if values is not None:
        columns["x"] = pa.array(values, to)
    return pa.table(columns | more)


def _files(writer: str, tables: dict[str, Any], *others: str) -> Callable[[Path], None]:
    """Write tables by their path without an ending; ``others`` are files without a table."""

    def write(folder: Path) -> None:
        for name, table in tables.items():
            path = folder / f"{name}{WRITERS[writer].ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            WRITERS[writer].write(table, str(path))
        for name in others:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    return write


def _bytes(name: str, raw: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(raw)

    return write


def layouts() -> list[Layout]:
    """Return all of them."""
    return [*_of_several_files(), *_csv_by_hand(), *_json_by_hand(), *_parquet_by_hand()]


def _of_several_files() -> list[Layout]:
    one, two = _table(["k0"], [1], pa.int64()), _table(["k1"], [2], pa.int64())
    both = {"k0": 1, "k1": 2}
    found = []
    for writer in ("pyarrow", "pandas", "csv-excel", "pandas-csv", "json", "pandas-json"):
        form, ending = WRITERS[writer].form, WRITERS[writer].ending
        empty = () if form == PARQUET else (f"part-2{ending}",)
        found += [
            Layout(
                f"uncommitted-{writer}",
                form,
                _files(
                    writer,
                    {"part-0": one, "part-1": two, "_temporary/0/part-0": one, "_old/part": two},
                    "_SUCCESS",
                    f".part-0{ending}.crc",
                    f"_started{ending}",
                    *empty,
                ),
                both,
            ),
            Layout(
                f"absent-{writer}",
                form,
                _files(writer, {"a": _table(["k0"], None), "b": _table(["k1"], ["v"])}),
                {"k0": "", "k1": "v"},
                kind="string",
                nullable=True,
            ),
            Layout(
                f"absent-everywhere-{writer}",
                form,
                _files(writer, {"a": _table(["k0"], None)}),
                {"k0": ""} if form == JSON else "column x is missing",
                kind="string",
                nullable=True,
            ),
            Layout(
                f"hive-{writer}",
                form,
                _files(
                    writer,
                    {
                        "x=1/part": _table(["k0"], None),
                        "x=0x10/part": _table(["k1"], None),
                        "x=__HIVE_DEFAULT_PARTITION__/part": _table(["k2"], None),
                    },
                ),
                {"k0": 1, "k1": "'0x10' is not a whole number", "k2": MISSING},
            ),
            Layout(
                f"not-nullable-{writer}",
                form,
                _files(writer, {"a": one, "b": _table(["k1"], None)}),
                "column x is missing",
            ),
        ]
    return found


def _csv_by_hand() -> list[Layout]:
    def of(name: str, raw: bytes, right: Any, kind: str = "int64") -> Layout:
        return Layout(f"csv-{name}", CSV, _bytes("t.csv", raw), right, kind)

    whole = b"id,x\nk0,1\nk1,2\n"
    return [
        of("semicolons", b"id;x\nk0;1\n", "column id is missing"),
        of("tabs", b"id\tx\nk0\t1\n", "column id is missing"),
        of("utf-16", "id,x\nk0,1\n".encode("utf-16"), "the header is not UTF-8"),
        of(
            "latin-1-cell",
            b"id,x\nk0,\xe9\nk1,a\n",
            {"k0": "'\ufffd' is not UTF-8", "k1": "a"},
            "string",
        ),
        of("blank-lines", b"\nid,x\n\nk0,1\n\n\nk1,2\n\n", {"k0": 1, "k1": 2}),
        of("blanks", b"id,x\nk0, 1\nk1,2 \n", {"k0": 1, "k1": 2}),
        of("returns", b"id,x\rk0,1\rk1,2\r", {"k0": 1, "k1": 2}),
        of("no-last-end", whole[:-1], {"k0": 1, "k1": 2}),
        of("header-alone", b"id,x\n", {}),
        of("ragged", b"id,x\nk0,1\nk1,2,3\n", {"k0": 1, "row 1": "3 cells instead of 2"}),
        of("unclosed", b'id,x\nk0,1\n"k1,2\nk2,3\n', "line 3: the quote that opens there"),
        of("zeros", whole + bytes(64), "NUL"),
        of("cut-gzip", gzip.compress(whole * 50)[:-12], "Truncated"),
        of("twice", b"id,x,x\nk0,1,2\n", "column x occurs 2 times"),
        of("no-csv", b"PAR1" + bytes(40), "column id is missing"),
        of("header-without-end", b"id,x", {}),
        of("other-header-without-end", b"a,b", "column id is missing"),
        of("gzip-by-another-name", gzip.compress(whole), {"k0": 1, "k1": 2}),
        of(
            "nan",
            b"id,x\nk0,NaN\nk1,nan\nk2,inf\nk3,-Infinity\n",
            {"k0": MISSING, "k1": MISSING, "k2": "inf is not finite", "k3": "-inf is not finite"},
            "float64",
        ),
        of(
            "bools",
            b"id,x\nk0,true\nk1,FALSE\nk2,1\nk3,0\nk4,True\n",
            {"k0": True, "k1": False, "k2": True, "k3": False, "k4": True},
            "bool",
        ),
        of(
            "floats-as-whole",
            b"id,x\nk0,1.0\nk1,1e3\nk2,9007199254740993.0\nk3,1.5\n",
            {"k0": 1, "k1": 1000, "k2": 9007199254740993, "k3": "1.5 is not a whole number"},
        ),
    ]


def _json_by_hand() -> list[Layout]:
    def of(name: str, cells: list[str], right: dict[str, Any], kind: str = "int64") -> Layout:
        lines = [f'{{"id":"k{at}","x":{cell}}}'.encode() for at, cell in enumerate(cells)]
        raw = b"\n".join(lines) + b"\n"
        return Layout(f"json-{name}", JSON, _bytes("t.jsonl", raw), right, kind, events=lines)

    rounded = "came as a float, which may have rounded it; write it as a whole number"
    good = '{"id":"k0","x":1}\n'
    return [
        of(
            "whole",
            ["1", "1.0", "1e3", "9007199254740993"],
            {"k0": 1, "k1": 1, "k2": 1000, "k3": 9007199254740993},
        ),
        of(
            "whole-rounded",
            ["9007199254740993.0", "1.5"],
            {"k0": f"9007199254740992 {rounded}", "k1": "1.5 is not a whole number"},
        ),
        of(
            "quoted",
            ['"12"', "12", "true", "[1]"],
            {
                "k0": "'12' is not a whole number",
                "k1": 12,
                "k2": "true is not a whole number",
                "k3": "a list is not a whole number",
            },
        ),
        of("hexadecimal", ['"0x10"', "16"], {"k0": "'0x10' is not a whole number", "k1": 16}),
        of(
            "float",
            ["0.1", "1", '"1.5"', "false", "{}", "null"],
            {
                "k0": 0.1,
                "k1": 1.0,
                "k2": "'1.5' is not a number",
                "k3": "false is not a number",
                "k4": "an object is not a number",
                "k5": MISSING,
            },
            "float64",
        ),
        of(
            "text",
            ['"a"', '"\\u00e9"', "12", '""', '"l1\\nl2"'],
            {"k0": "a", "k1": "é", "k2": "12 is not text", "k3": "", "k4": "l1\nl2"},
            "string",
        ),
        of(
            "bool",
            ["true", "1", '"true"', "false"],
            {
                "k0": True,
                "k1": "1 is not true or false",
                "k2": "'true' is not true or false",
                "k3": False,
            },
            "bool",
        ),
        Layout(
            "json-repeated-name",
            JSON,
            _bytes("t.jsonl", b'{"id":"k0","x":1,"x":2}\n'),
            {"k0": 2},
            events=[b'{"id":"k0","x":1,"x":2}'],
        ),
        Layout("json-blank-lines", JSON, _bytes("t.jsonl", f"\n{good}\n\n".encode()), {"k0": 1}),
        Layout("json-zeros", JSON, _bytes("t.jsonl", good.encode() + bytes(64)), "NUL"),
        Layout(
            "json-cut-gzip",
            JSON,
            _bytes("t.jsonl.gz", gzip.compress(good.encode() * 50)[:-12]),
            "Truncated",
        ),
        Layout(
            "json-one-list",
            JSON,
            _bytes("t.json", f"[{good.strip()}]".encode()),
            "the file is a JSON array; write one object per line (JSON Lines)",
        ),
        Layout("json-nothing", JSON, _bytes("t.jsonl", b""), {}),
    ]


def _parquet_by_hand() -> list[Layout]:
    return [
        Layout(
            "parquet-nothing", PARQUET, _bytes("t.parquet", b""), "Parquet file size is 0 bytes"
        ),
        Layout("parquet-zeros", PARQUET, _bytes("t.parquet", bytes(512)), "Parquet"),
        Layout("parquet-is-csv", PARQUET, _bytes("t.parquet", b"id,x\nk0,1\n"), "looks like CSV"),
        Layout(
            "parquet-is-json",
            PARQUET,
            _bytes("t.parquet", b'{"id":"k0","x":1}\n'),
            "looks like JSONLines",
        ),
        Layout(
            "parquet-cut",
            PARQUET,
            _bytes("t.parquet", b"PAR1" + bytes(96)),
            "Parquet magic bytes not found",
        ),
    ]
