"""Batch under `fourways up`: what ends a run is a condition, and a run is gone on with."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fourways_runtime.io.store import open_run_store
from tests.kit.hosts import Up, await_settled, patiently
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES

pytestmark = [
    pytest.mark.embedded,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("examples_complete"),
]

Json = dict[str, Any]
FILES, ROWS = 25, 4000


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with Up(tmp_path / "state", volumes={CLAIM: ARTIFACTS, "own": tmp_path / "own"}) as host:
        yield host


def churn(name: str, source: str, **batch: Any) -> Json:
    document: Json = yaml.safe_load((EXAMPLES / "churn.yaml").read_text())
    document["metadata"]["name"] = name
    document["spec"]["batch"] |= {"source": {"uri": f"pvc://own/{source}"}} | batch
    return document


def customers(count: int) -> pa.Table:
    """Return so many customers of the example."""
    table = pq.read_table(ARTIFACTS / "churn" / "source.parquet")
    good = table.filter(pa.array(np.array(table["spend"]) > 1))
    many = good.take(pa.array(np.arange(count) % good.num_rows))
    return replaced(many, "customer_id", [f"n{n}" for n in range(count)])


def replaced(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values))


def manifest(folder: Path, *documents: Json) -> Path:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def test_what_ends_a_run_is_a_condition_that_says_what_to_do(
    up: Up, tmp_path: Path, disk: Callable[..., Any]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    disk(own / "out", "64k")
    table = customers(20_000)
    pq.write_table(table, own / "good.parquet")
    pq.write_table(replaced(table, "spend", [-1.0] * 20_000), own / "poisoned.parquet")
    pq.write_table(table.drop_columns(["discs"]), own / "drifted.parquet")
    sink = {"files": {"uri": "pvc://own/out"}}
    up.start(
        manifest(
            tmp_path,
            churn("gone", "nowhere.parquet"),
            churn("drifted", "drifted.parquet"),
            churn("poisoned", "poisoned.parquet"),
            churn("cramped", "good.parquet", sink=sink, backoffLimit=0),
        )
    )
    said = await_settled(up.state, 100)
    told = {name: (c["Degraded"]["reason"], c["Degraded"]["message"]) for name, c in said.items()}
    assert all(c["Ready"]["status"] == "False" for c in said.values()), said
    for name, reason, words in (
        ("gone", "SourceError", "pvc://own/nowhere.parquet: 'nowhere.parquet': no such file"),
        ("drifted", "SourceError", "column discs is missing; the file has customer_id, "),
        ("poisoned", "TooManyRejects", "spend is below 0.01"),
        ("cramped", "StoreFull", "no space left on device"),
    ):
        assert told[name][0] == reason, told
        assert words in told[name][1], told
        response = _asked(up, name)
        assert response.status_code == 404, response.text


def test_a_run_that_failed_midway_goes_on_with_what_it_recorded(up: Up, tmp_path: Path) -> None:
    own = tmp_path / "own" / "in"
    own.mkdir(parents=True)
    table = customers(FILES * ROWS)
    for at in range(FILES):
        pq.write_table(table.slice(at * ROWS, ROWS), own / f"{at:02}.parquet")
    up.start(manifest(tmp_path, churn("churn", "in", backoffLimit=0)))
    worker = until(lambda: _worker(up), "a worker runs", seconds=60)
    until(
        lambda: len(_recorded(up, "published")) > 1,
        "chunks are recorded",
        seconds=60,
        interval=0.01,
    )
    os.kill(worker, signal.SIGKILL)
    assert _failed(up) == "WorkerFailed"
    (status,) = orjson.loads(up.fourways("status", "-o", "json"))["items"]
    failed = status["status"]["lastRun"]["name"]
    before = _recorded(up, "published")
    assert 0 < len(before) < FILES
    assert _asked(up, "churn").status_code == 404

    # Once more, with a worker that hangs until its deadline has passed.
    _restart(up, tmp_path, activeDeadlineSeconds=3)
    words = ("start-run", "churn", "--resume", failed, "--wait", "0")
    started = threading.Thread(target=up.fourways, args=words)
    started.start()
    worker = until(lambda: _worker(up), "a worker runs", seconds=60)
    os.kill(worker, signal.SIGSTOP)
    started.join()
    until(lambda: _is_told_to_end(worker), "the worker is told to end", seconds=60, interval=0.01)
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)
    assert _failed(up) == "DeadlineExceeded"
    between = _recorded(up, "published")
    assert {number: between[number] for number in before} == before, "scored again"

    _restart(up, tmp_path)
    told = up.fourways("start-run", "churn", "--resume", failed)
    assert f"it resumes {failed}" in told
    assert f"Succeeded: {FILES * ROWS} rows, 0 rejected" in told
    after = _recorded(up, "writing")
    assert len(after) == FILES
    assert {number: after[number] for number in between} == between, "scored again"
    answer = _asked(up, "churn")
    assert answer.status_code == 200, answer.text
    assert "published already" in up.refused("start-run", "churn", "--resume", failed)


def _restart(up: Up, folder: Path, **batch: Any) -> None:
    """Start the host anew with another manifest; nothing runs until it is told to."""
    up.stop()
    up.start(manifest(folder, churn("churn", "in", suspend=True, backoffLimit=0, **batch)))
    until(lambda: _answers(f"{up.url}/v2/health/ready"), "the gateway is ready", seconds=60)


def _failed(up: Up) -> str:
    """Wait for the run's end; return the reason it failed for."""
    said = await_settled(up.state, 100)["churn"]
    assert said["Ready"]["status"] == "False", said
    reason: str = said["Degraded"]["reason"]
    return reason


def _is_told_to_end(pid: int) -> bool:
    """Tell whether SIGTERM waits for a process that is stopped; it may have ended before."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    waiting = next(line.split()[1] for line in lines if line.startswith("ShdPnd"))
    return bool(int(waiting, 16) >> (signal.SIGTERM - 1) & 1)


def _asked(up: Up, name: str) -> httpx.Response:
    return patiently(lambda: httpx.get(f"{up.url}/predictions/{name}/n1", trust_env=False))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _worker(up: Up) -> int | None:
    for pid in up.children():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"fourways_runtime" in words and b"batch" in words:
            return pid
    return None


def _recorded(up: Up, but: str) -> dict[int, tuple[Any, ...]]:
    """Return the chunks recorded of the run that is not ``but``."""
    if not (up.state / "store.db").exists():
        return {}
    with closing(open_run_store(f"sqlite:///{up.state / 'store.db'}")) as writer:
        found = writer.database.rows(
            "SELECT c.number, c.owner, c.attempts, c.done_at, c.rows FROM @chunks c "
            "JOIN @runs r ON r.id = c.run_id WHERE c.state = 'done' AND r.state <> ?",
            (but,),
        )
    return {number: tuple(rest) for number, *rest in found}
