"""Writes the files of the cases, reads them as a batch run does, and their cells as events."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.errors import SourceError
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.io.sources import open_table
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordRefused, RecordScorer
from fourways_runtime.scoring.table_pipeline import TablePipeline
from fourways_runtime.workloads.streaming.scoring import EventScorer

from . import writers
from .cases import CASES, Case
from .layouts import Layout, layouts
from .writers import DELTA, PARQUET, WRITERS

Outcomes = dict[str, Any]
"""A value or the words of a refusal, by key."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file: its case and its writer."""

    case: Case
    writer: str
    path: Path

    @property
    def name(self) -> str:
        """Its name for messages."""
        return f"{self.case.name} by {self.writer}"

    @property
    def form(self) -> str:
        """The source's format."""
        return WRITERS[self.writer].form


class Echo:
    """A model that returns its input."""

    def __init__(self, case: Case) -> None:
        shape: tuple[int | None, ...] = (None, *case.shape)
        self.inputs: tuple[Tensor, ...] = (Tensor("x", case.kind, shape),)
        self.outputs: tuple[Tensor, ...] = (Tensor("y", case.kind, shape),)

    def predict(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input."""
        return {"y": tensors["x"]}


def contract(case: Case) -> Contract:
    """Return the contract of a case."""
    shape = {"shape": list(case.shape)} if case.shape else {}
    return Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": case.kind, "nullable": case.nullable} | shape],
            "outputs": [{"name": "y", "type": case.kind} | shape],
        }
    )


def written(folder: Path, peers: Path | None, cases: Iterable[Case] = CASES) -> list[TableFile]:
    """Write every case by every writer of its forms; ``peers`` is the Python that has the others.

    Raises:
        RuntimeError: a writer cannot write a case that it should.

    """
    found: list[TableFile] = []
    jobs: dict[bool, list[dict[str, str]]] = {False: [], True: []}
    for case in cases:
        stage = folder / f"{case.name}.arrow"
        table = case.table()
        with pa.OSFile(str(stage), "wb") as file, pa.ipc.new_file(file, table.schema) as stream:
            stream.write_table(table)
        for name, writer in WRITERS.items():
            form = PARQUET if writer.form == DELTA else writer.form
            if form not in case.forms or case.name in writer.cannot:
                continue
            if writer.peer and peers is None:
                continue
            path = folder / f"{case.name}-{name}{writer.ending}"
            found.append(TableFile(case, name, path))
            job = {"writer": name, "stage": str(stage), "path": str(path)}
            jobs[writer.peer].append(job)
    failed = {}
    for job in jobs[False]:
        if said := writers.write(job["writer"], job["stage"], job["path"]):
            failed[job["path"]] = said
    if jobs[True]:
        failed |= _by_peers(folder, str(peers), jobs[True])
    if failed:
        raise RuntimeError("\n".join(f"{Path(p).name}: {said}" for p, said in failed.items()))
    return found


def _by_peers(folder: Path, python: str, jobs: list[dict[str, str]]) -> dict[str, str]:
    listed = folder / "jobs.json"
    listed.write_text(json.dumps(jobs))
    ran = subprocess.run(
        [python, str(writers.__file__), str(listed)], stdout=subprocess.PIPE, check=True
    )
    failed: dict[str, str] = json.loads(ran.stdout)
    return failed


def faults(file: TableFile) -> Iterator[str]:
    """Compare a file's outcomes, in batch, as events and record by record, with what is right."""
    case = file.case
    try:
        batch = in_batch(file.path, file.form, case)
    except SourceError as error:
        if not case.refused or case.refused not in str(error):
            yield f"{file.name}: the file was refused: {error}"
        return
    if case.refused:
        yield f"{file.name}: was read, and not refused: {case.refused}"
        return
    expected = case.outcomes()
    for way, found in (("batch", batch), ("events", as_events(case)), ("record", alone(case))):
        for key in expected.keys() | found.keys():
            if expected.get(key) != found.get(key):
                yield (
                    f"{file.name}, {way}, {key}: {found.get(key)!r} "
                    f"instead of {expected.get(key)!r}"
                )


def in_batch(path: Path, form: str, case: Case) -> Outcomes:
    """Read a table as a batch run does, and score it. Raises SourceError."""
    source = BatchSource.model_validate({"uri": f"file://{path}", "format": form})
    table = open_table(source, contract(case), policy=FetchPolicy(), paths=Paths())
    pipeline = TablePipeline(Pipeline(contract(case), Echo(case)))
    found: Outcomes = {}
    keys: dict[int, str] = {}
    for split in table.splits(0):
        for chunk in table.read(split):
            named = chunk.batch.column("id").to_pylist()
            keys |= dict(zip(chunk.rows.tolist(), map(_key, named), strict=True))
            scored = pipeline.score(chunk.batch, chunk.rows)
            found |= _values(scored.predictions)
            for reject in (*chunk.rejects, *scored.rejects):
                found[keys.get(reject.row, f"row {reject.row}")] = reject.reason
    return found


def _key(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _values(predictions: Any) -> Outcomes:
    return dict(zip(predictions.keys.tolist(), predictions.columns["y"].tolist(), strict=True))


def as_events(case: Case) -> Outcomes:
    """Score the cells of a case as events of a stream."""
    return events_of(case, case.events())


def events_of(case: Case, values: list[bytes]) -> Outcomes:
    """Score events with the keys k0, k1, … in order."""
    bound = Pipeline(contract(case), Echo(case))
    scorer = EventScorer(contract(case), Echo(case), bound, len(values))
    nothing: list[bytes | None] = [None] * len(values)
    outcome = scorer.score(
        Events([0] * len(values), range(len(values)), nothing, values, lambda _: ())
    )
    found = _values(outcome.predictions)
    for at, said in outcome.refusals.items():
        found[f"k{at}"] = said.partition(": ")[2]
    return found


def alone(case: Case) -> Outcomes:
    """Score the cells of a case one at a time, as a device does."""
    scorer = RecordScorer(contract(case), Echo(case))
    found: Outcomes = {}
    for at, event in enumerate(case.events()):
        try:
            found[f"k{at}"] = scorer.ask({"x": orjson.loads(event)["x"]})["y"]
        except RecordRefused as refused:
            found[f"k{at}"] = refused.reason
    return found


def layout_faults(layout: Layout, folder: Path) -> Iterator[str]:
    """Write a table of several files, or a damaged one, and compare the outcomes."""
    folder.mkdir()
    layout.write(folder)
    case = Case(layout.name, layout.kind, None, (), nullable=layout.nullable)
    try:
        found: Any = in_batch(folder, layout.form, case)
    except SourceError as error:
        found = str(error)
    if isinstance(layout.right, str) and isinstance(found, str):
        right = layout.right in found
    else:
        right = found == layout.right
    if not right:
        yield f"{layout.name}: {found!r} instead of {layout.right!r}"
    if layout.events and (told := events_of(case, layout.events)) != layout.right:
        yield f"{layout.name}, events: {told!r} instead of {layout.right!r}"


def main(peers: Path | None, folder: Path) -> int:
    """Write and judge the whole corpus; return the number of faults."""
    files = written(folder, peers)
    said = [fault for file in files for fault in faults(file)]
    for layout in layouts():
        said += layout_faults(layout, folder / layout.name)
    for fault in said:
        print(fault, file=sys.stderr)
    used = {file.writer for file in files}
    tables = len(files) + len(layouts())
    print(f"{tables} tables of {len(used)} writers and of hand: {len(said)} faults")
    return len(said)
