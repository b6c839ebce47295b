"""One cell has one verdict, in the same words, whatever reads it and whatever stands beside it.

Every reader of the product is fed the same cells: CSV, JSON Lines, Parquet of several types, events
of a stream, tensors of a request, a record on a device; alone (the fast paths) and beside cells
that no fast path takes.
"""

from __future__ import annotations

import decimal
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.io.sources import open_table
from fourways_runtime.scoring import exact_json
from fourways_runtime.scoring.columns import Reject
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordRefused, RecordScorer
from fourways_runtime.scoring.table_pipeline import TablePipeline
from fourways_runtime.scoring.tensors import MaybeRounded, from_json
from fourways_runtime.v2.numbers import Numbers
from fourways_runtime.workloads.streaming.scoring import EventScorer

B = 2**53
INT64, UINT64 = "(-9223372036854775808 to 9223372036854775807)", "(0 to 18446744073709551615)"
ROUNDED = "came as a float, which may have rounded it; write it as a whole number"
BAD = object()
"""Not JSON: the record is refused, not the cell."""

NUMBERS: list[tuple[str, str, Any]] = [
    ("int64", "12", 12),
    ("int64", "-0", 0),
    ("int64", "1.0", 1),
    ("int64", "1e3", 1000),
    ("int64", "1.5", "1.5 is not a whole number"),
    ("int64", str(B + 1), B + 1),
    ("int64", str(2**63 - 1), 2**63 - 1),
    ("int64", str(-(2**63)), -(2**63)),
    ("int64", str(2**63), f"{2**63} is outside int64 {INT64}"),
    ("uint64", str(2**64 - 1), 2**64 - 1),
    ("uint64", "-1", f"-1 is outside uint64 {UINT64}"),
    ("int16", "40000", "40000 is outside int16 (-32768 to 32767)"),
    ("int16", "-32768", -32768),
    ("float64", "0.1", 0.1),
    ("float64", "1e3", 1000.0),
    ("float64", str(B), float(B)),
    ("float64", str(B + 1), f"{B + 1} would be rounded in float64"),
    ("float64", str(2**60), float(2**60)),
    ("float64", "1e300", 1e300),
    ("float64", str(2**64), float(2**64)),
    ("float64", str(2**64 + 1), f"{2**64 + 1} would be rounded in float64"),
    ("float64", str(-(10**22)), -1e22),
    ("float64", str(-(10**22) - 1), f"{-(10**22) - 1} would be rounded in float64"),
    ("float64", "1e23", 1e23),
    ("float32", str(2**64 + 2**39), f"{2**64 + 2**39} would be rounded in float32"),
    ("float32", "0.1", float(np.float32(0.1))),
    ("float32", "16777216", 16777216.0),
    ("float32", "16777217", "16777217 would be rounded in float32"),
    ("float32", "33554432", 33554432.0),
    ("float32", "1e39", "1e+39 does not fit float32"),
    ("float16", "0.1", float(np.float16(0.1))),
    ("float16", "2049", "2049 would be rounded in float16"),
    ("float16", "70000", "70000 does not fit float16"),
    ("float16", "-70000", "-70000 does not fit float16"),
]
"""Cells that text, JSON and typed columns all can hold."""

TEXTS: list[tuple[str, str, Any]] = [
    ("int64", "0x10", "'0x10' is not a whole number"),
    ("int64", "+5", 5),
    ("int64", " 5 ", 5),
    ("int64", f"{B + 1}.0", B + 1),
    ("int64", "9007199254740993000e-3", B + 1),
    ("int64", "1_000", "'1_000' is not a whole number"),
    ("int64", "١٢", "'١٢' is not a whole number"),
    ("int64", "NaN", "missing"),
    ("int64", "inf", "inf is not finite"),
    ("int64", "1e400", f"1e400 is outside int64 {INT64}"),
    ("int64", "1e999999999", f"1e999999999 is outside int64 {INT64}"),
    ("int64", "1e-999999999", "1e-999999999 is not a whole number"),
    ("int64", str(-(2**63) - 1), f"{-(2**63) - 1} is outside int64 {INT64}"),
    ("int64", "true", "'true' is not a whole number"),
    ("float64", "0x10", "'0x10' is not a number"),
    ("float64", "+5", 5.0),
    ("float64", " 5", 5.0),
    ("float64", "١٢", "'١٢' is not a number"),
    ("float64", "NaN", "missing"),
    ("float64", "-Infinity", "-inf is not finite"),
    ("float64", "1e400", "inf is not finite"),
    ("bool", "TRUE", True),
    ("bool", "0", False),
    ("bool", "yes", "'yes' is not true or false"),
]
"""Cells of a text file alone."""

JSON: list[tuple[str, str, Any]] = [
    ("int64", "0x10", BAD),
    ("int64", "+5", BAD),
    ("float64", "NaN", BAD),
    ("float64", "Infinity", BAD),
    ("float64", "1e400", BAD),
    ("string", '"\\ud800"', BAD),
    ("int64", "null", "missing"),
    ("int64", "true", "true is not a whole number"),
    ("int64", '"12"', "'12' is not a whole number"),
    ("int64", "[1]", "a list is not a whole number"),
    ("int64", f"{B + 1}.0", f"{B} {ROUNDED}"),
    ("int64", f"{B - 1}.0", B - 1),
    ("int64", str(-(2**63) - 1), f"{-(2**63) - 1} is outside int64 {INT64}"),
    ("int64", str(2**64), f"{2**64} is outside int64 {INT64}"),
    ("float64", '"1.5"', "'1.5' is not a number"),
    ("float64", "false", "false is not a number"),
    ("float64", "{}", "an object is not a number"),
    ("string", "12", "12 is not text"),
    ("string", '"é"', "é"),
    ("bool", "1", "1 is not true or false"),
    ("bool", '"true"', "'true' is not true or false"),
    ("bool", "false", False),
]
"""Cells of JSON alone."""

EASY = {"int64": "7", "uint64": "7", "int16": "7", "float64": "7", "float32": "7"}
EASY |= {"bool": "true", "string": '"x"'}
HARD = {"int64": "1e1", "uint64": "1e1", "int16": "1e1", "float64": str(B + 3)}
EASY |= {"float16": "7"}
HARD |= {"float16": str(2**11 + 3), "float32": str(2**24 + 3), "bool": "0", "string": "0"}
"""What no fast path takes."""


class Echo:
    """A model that answers its input."""

    def __init__(self, kind: str) -> None:
        self.inputs = (Tensor("x", kind, (None,)),)
        self.outputs = (Tensor("y", kind, (None,)),)

    def predict(self, tensors: Any) -> dict[str, Any]:
        return {"y": tensors["x"]}


def contract(kind: str, key: str = "string") -> Contract:
    fields = [{"name": "x", "type": kind}]
    outputs = [{"name": "y", "type": kind}]
    entity = {"name": "id", "type": key}
    return Contract.model_validate({"entityKey": entity, "inputs": fields, "outputs": outputs})


def pipeline(kind: str) -> Pipeline:
    return Pipeline(contract(kind), Echo(kind))


def of_table(path: Path, form: str, kind: str) -> Any:
    """Return the verdict on the row with the key k."""
    source = BatchSource.model_validate({"uri": f"file://{path}", "format": form})
    table = open_table(source, contract(kind), policy=FetchPolicy(), paths=Paths())
    rejects: list[Reject] = []
    for split in table.splits(0):
        for chunk in table.read(split):
            scored = TablePipeline(pipeline(kind)).score(chunk.batch, chunk.rows)
            for key, value in zip(
                scored.predictions.keys, scored.predictions.columns["y"].tolist(), strict=True
            ):
                if key == "k":
                    return value
            rejects += [*chunk.rejects, *scored.rejects]
    (found,) = (reject for reject in rejects if reject.row == 0)
    return BAD if found.field == "row" else found.reason


def in_csv(folder: Path, kind: str, cell: str) -> dict[str, Any]:
    found = {}
    quiet = {"bool": "true"}.get(kind, "7")
    odd = {"bool": "yes"}.get(kind, "0x11")
    for name, beside in (("alone", ""), ("easy", f"n,{quiet}\n"), ("odd", f"n,{odd}\n")):
        path = folder / f"{name}.csv"
        path.write_text(f"id,x\nk,{cell}\n{beside}", encoding="utf-8")
        found[f"CSV {name}"] = of_table(path, "CSV", kind)
    return found


def in_json(folder: Path, kind: str, cell: str) -> dict[str, Any]:
    found = {}
    for name, beside in (("alone", None), ("easy", EASY[kind]), ("hard", HARD[kind])):
        line = f'{{"id":"k","x":{cell}}}'
        others = [] if beside is None else [f'{{"id":"n","x":{beside}}}']
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join([line, *others]) + "\n", encoding="utf-8")
        found[f"JSON Lines {name}"] = of_table(path, "JSONLines", kind)
        found[f"stream {name}"] = of_stream(kind, [line, *others])
        tensors = [cell] if beside is None else [cell, beside]
        found[f"V2 {name}"] = of_request(kind, tensors)
    found["device"] = of_device(kind, cell)
    return found


def of_stream(kind: str, lines: list[str]) -> Any:
    scorer = EventScorer(contract(kind), Echo(kind), pipeline(kind), 16)
    values = [line.encode() for line in lines]
    keys: list[bytes | None] = [None] * len(values)
    outcome = scorer.score(
        Events([0] * len(values), range(len(values)), keys, values, lambda _: ())
    )
    if 0 in outcome.refusals:
        field, _, reason = outcome.refusals[0].partition(": ")
        return BAD if field == "event" else reason
    at = outcome.predictions.rows.tolist().index(0)
    return outcome.predictions.columns["y"].tolist()[at]


def of_request(kind: str, cells: list[str]) -> Any:
    try:
        data = orjson.loads(f"[{','.join(cells)}]")
    except ValueError:
        return BAD
    if kind.startswith("float"):
        read = Numbers(np.dtype(kind)).read([",".join(cells).encode()], [len(cells)])
        if read is not None and np.isfinite(read).all():  # Infinity is looked at closely.
            return read.tolist()[0]
    plain = not any(isinstance(value, bool) for value in data)
    try:
        values, faults = from_json(kind, False, data, (len(data),), plain, exact=False)
    except MaybeRounded:
        data = exact_json.loads(f"[{','.join(cells)}]")
        values, faults = from_json(kind, False, data, (len(data),), plain)
    if 0 in faults:
        return faults[0]
    return "missing" if values[0] is None else values.tolist()[0]


def of_device(kind: str, cell: str) -> Any:
    try:
        value = exact_json.loads(cell)
    except ValueError:
        return BAD
    try:
        return RecordScorer(contract(kind), Echo(kind)).ask({"x": value})["y"]
    except RecordRefused as refused:
        return refused.reason


def in_parquet(folder: Path, kind: str, cell: str) -> dict[str, Any]:
    number = decimal.Decimal(cell)
    columns: dict[str, Any] = {}
    if cell.lstrip("-").isdigit():
        for name, to in (("int64", pa.int64()), ("uint64", pa.uint64())):
            try:
                columns[name] = pa.array([int(cell)], to)
            except OverflowError:
                continue
        columns["decimal"] = pa.array([number], pa.decimal128(38, 0))
        columns["decimal256"] = pa.array([number], pa.decimal256(50, 0))
    elif kind.startswith("float"):
        columns["float64"] = pa.array([float(cell)], pa.float64())
    found = {}
    for name, column in columns.items():
        path = folder / f"{name}.parquet"
        pq.write_table(pa.table({"id": ["k"], "x": column}), path)
        found[f"Parquet {name}"] = of_table(path, "Parquet", kind)
    return found


def judged_alike(found: dict[str, Any], expected: Any) -> None:
    wrong = {name: was for name, was in found.items() if was is not expected and was != expected}
    assert not wrong, f"expected {expected!r}"


@pytest.mark.parametrize(("kind", "cell", "expected"), NUMBERS)
def test_a_number_is_judged_alike_by_every_reader(
    tmp_path: Path, kind: str, cell: str, expected: Any
) -> None:
    found = in_csv(tmp_path, kind, cell)
    found |= in_json(tmp_path, kind, cell)
    found |= in_parquet(tmp_path, kind, cell)
    judged_alike(found, expected)


@pytest.mark.parametrize(("kind", "cell", "expected"), TEXTS)
def test_a_text_is_judged_alike_whatever_stands_beside_it(
    tmp_path: Path, kind: str, cell: str, expected: Any
) -> None:
    judged_alike(in_csv(tmp_path, kind, cell), expected)


@pytest.mark.parametrize(("kind", "cell", "expected"), JSON)
def test_json_is_judged_alike_in_files_events_requests_and_on_devices(
    tmp_path: Path, kind: str, cell: str, expected: Any
) -> None:
    judged_alike(in_json(tmp_path, kind, cell), expected)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([float(B)]),
        pa.array([2.0**24], pa.float32()),
        pa.array([2.0**11], pa.float16()),
    ],
)
def test_a_float_column_keeps_whole_numbers_only_as_far_as_it_is_exact(
    tmp_path: Path, column: Any
) -> None:
    path = tmp_path / "t.parquet"
    for value, expected in (
        (column[0].as_py(), f"{int(column[0].as_py())} {ROUNDED}"),
        (column[0].as_py() - 1, int(column[0].as_py()) - 1),
        (2.5, "2.5 is not a whole number"),
        (math.inf, "inf is not finite"),
        (2.0**12 * -1, -(2**12) if column.type != pa.float16() else f"-4096 {ROUNDED}"),
    ):
        pq.write_table(pa.table({"id": ["k"], "x": pa.array([value], column.type)}), path)
        assert of_table(path, "Parquet", "int64") == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array([decimal.Decimal(B + 1), decimal.Decimal(2**63 - 1)], pa.decimal128(20, 0)),
        pa.array([decimal.Decimal(B + 1), decimal.Decimal(2**63 - 1)], pa.decimal128(38, 9)),
        pa.array([B + 1, 2**63 - 1], pa.uint64()),
    ],
)
def test_keys_keep_every_digit(tmp_path: Path, column: Any) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": column, "x": [1.0, 2.0]}), path)
    source = BatchSource.model_validate({"uri": f"file://{path}", "format": "Parquet"})
    spec = contract("float64", "int64")
    table = open_table(source, spec, policy=FetchPolicy(), paths=Paths())
    (chunk,) = table.chunks()
    scored = TablePipeline(Pipeline(spec, Echo("float64"))).score(chunk.batch, chunk.rows)
    assert scored.predictions.keys.tolist() == [B + 1, 2**63 - 1]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, mark: bytes) -> None:
    line = mark + b'{"id":"k","x":1}'
    for name, body in (("a", line + b"\n"), ("b", line + b'\n{"id":"n","x":2}\n')):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(body)
        assert of_table(path, "JSONLines", "float64") == 1
    path = tmp_path / "t.csv"
    path.write_bytes(mark + b"id,x\nk,1\n")
    assert of_table(path, "CSV", "float64") == 1
    scorer = EventScorer(contract("float64"), Echo("float64"), pipeline("float64"), 16)
    outcome = scorer.score(Events([0], range(1), [None], [line], lambda _: ()))
    assert outcome.refusals == {}
    assert outcome.predictions.columns["y"].tolist() == [1]


SHAPED = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "v", "type": "float32", "shape": [2]}],
        "outputs": [{"name": "y", "type": "float32", "shape": [2]}],
    }
)


class EchoList(Echo):
    def __init__(self) -> None:
        self.inputs = (Tensor("v", "float32", (None, 2)),)
        self.outputs = (Tensor("y", "float32", (None, 2)),)

    def predict(self, tensors: Any) -> dict[str, Any]:
        return {"y": tensors["v"]}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("[1, 2.5]", [1, 2.5]),
        ("[1, 2, 3]", "3 elements at depth 1, shape [2] was expected"),
        ("[[1, 2]]", "1 elements at depth 1, shape [2] was expected"),
        ('[1, "2"]', "element [1]: '2' is not a number"),
        ("[1, null]", "element [1]: missing"),
        ("[1, 16777217]", "element [1]: 16777217 would be rounded in float32"),
        ("[true, 1]", "element [0]: true is not a number"),
        ('"[1, 2]"', "'[1, 2]' is not a list of float32 of shape [2]"),
        ("3", "3 is not a list of float32 of shape [2]"),
        ("null", "missing"),
    ],
)
@pytest.mark.parametrize("beside", ["", "[7, 8]", "[7]"])
def test_a_list_is_judged_alike_in_files_and_events(
    tmp_path: Path, cell: str, beside: str, expected: Any
) -> None:
    lines = [f'{{"id":"k","v":{cell}}}', *([f'{{"id":"n","v":{beside}}}'] if beside else [])]
    bound = Pipeline(SHAPED, EchoList())
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines) + "\n")
    source = BatchSource.model_validate({"uri": f"file://{path}", "format": "JSONLines"})
    table = open_table(source, SHAPED, policy=FetchPolicy(), paths=Paths())
    (chunk,) = table.chunks()
    scored = TablePipeline(bound).score(chunk.batch, chunk.rows)
    values = [line.encode() for line in lines]
    keys: list[bytes | None] = [None] * len(values)
    outcome = EventScorer(SHAPED, EchoList(), bound, 16).score(
        Events([0] * len(values), range(len(values)), keys, values, lambda _: ())
    )
    if isinstance(expected, str):
        assert {reject.row: str(reject) for reject in scored.rejects}[0] == f"v: {expected}"
        assert outcome.refusals[0] == f"v: {expected}"
    else:
        assert scored.predictions.columns["y"][0].tolist() == expected
        assert outcome.predictions.columns["y"][0].tolist() == expected
