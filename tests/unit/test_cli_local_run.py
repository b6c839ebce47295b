"""A run on this host, told as Kubernetes tells an Indexed Job; its processes are scripted here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from fourways_api import Paths, parse
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli import jobs
from fourways_cli.embedded import runs, workloads
from fourways_cli.embedded.runs import LocalRun
from fourways_cli.embedded.workloads import LocalJob
from fourways_operator import planning as planner
from fourways_operator.facts import OperatorSettings
from fourways_operator.runs import runs_of

GOLDEN = Path(__file__).parents[1] / "golden" / "plan" / "batch-shared.in.yaml"
Script = Callable[[int, int], int | None]
"""From a worker's index and its try to the exit code; None: it works until it is stopped."""


def planned(**batch: Any) -> LocalJob:
    document = yaml.safe_load(GOLDEN.read_text())
    document["spec"]["batch"] |= batch
    objects = planner.plan(parse(document), OperatorSettings(runtime_image="fourways-runtime:dev"))
    (cron,) = workloads.cron_jobs(objects)
    return workloads.batch_job(jobs.run_job(cron.planned), "m-1", Paths())


class Process:
    """A worker that ends with a code, or works on."""

    def __init__(self, code: int | None) -> None:
        self._code = code

    async def wait(self) -> int:
        if self._code is None:
            await asyncio.Event().wait()
        return self._code or 0


def say_success(environment: Mapping[str, str]) -> None:
    paths = json.loads(environment[CONFIG_VARIABLE])["paths"]
    Path(paths["terminationLog"]).write_text('{"outcome": "Succeeded"}')


class Processes:
    """Workers that end as a script says."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.tries: dict[int, int] = {}
        self.runs: set[str] = set()
        self.stopped: list[int] = []

    @asynccontextmanager
    async def worker(
        self, args: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> AsyncIterator[Process]:
        index = int(environment["JOB_COMPLETION_INDEX"])
        self.runs.add(environment["FOURWAYS_RUN"])
        attempt = self.tries[index] = self.tries.get(index, -1) + 1
        code = self.script(index, attempt)
        if code == 0:
            say_success(environment)
        try:
            yield Process(code)
        except asyncio.CancelledError:
            self.stopped.append(index)
            raise


async def run_to_end(
    monkeypatch: pytest.MonkeyPatch, folder: Path, script: Script, job: LocalJob | None = None
) -> tuple[LocalRun, Processes]:
    (folder / "runs").mkdir()
    processes = Processes(script)
    monkeypatch.setattr(runs, "worker", processes.worker)
    monkeypatch.setattr(runs, "FIRST_RETRY_SECONDS", 0.0)
    run = LocalRun(job or planned(), folder)
    await run.run()
    return run, processes


async def test_the_first_worker_that_ends_well_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, processes = await run_to_end(
        monkeypatch, tmp_path, lambda index, _: 0 if index == 2 else None
    )
    (told,) = runs_of([run.job], run.pods)
    assert told.status.outcome == "Succeeded"
    assert set(processes.tries) == {0, 1, 2, 3}
    assert sorted(processes.stopped) == [0, 1, 3]
    assert processes.runs == {"m-1"}
    assert run.job["status"]["active"] == 0


async def test_a_worker_lost_for_good_leaves_its_share_to_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = planned(workers=2, backoffLimit=1)
    run, processes = await run_to_end(
        monkeypatch,
        tmp_path,
        lambda index, attempt: 75 if index == 1 else (137 if attempt == 0 else 0),
        job,
    )
    (told,) = runs_of([run.job], run.pods)
    assert told.status.outcome == "Succeeded"
    assert processes.tries[0] == 1


async def test_what_cannot_get_better_ends_the_run_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, processes = await run_to_end(
        monkeypatch, tmp_path, lambda index, _: 3 if index == 1 else None
    )
    (told,) = runs_of([run.job], run.pods)
    assert told.status.outcome == "Failed"
    assert processes.tries[1] == 0
    assert told.failure is not None
    assert told.failure.message.startswith("worker 1: ")


async def test_a_run_no_worker_can_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = planned(workers=2, backoffLimit=1)
    run, processes = await run_to_end(monkeypatch, tmp_path, lambda *_: 75, job)
    assert run.job["status"]["conditions"][0]["reason"] == "FailedIndexes"
    assert sorted(run.job["status"]["failedIndexes"].split(",")) == ["0", "1"]
    assert processes.tries == {0: 1, 1: 1}


async def test_a_run_that_takes_too_long_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = planned(workers=2, activeDeadlineSeconds=1)
    run, processes = await run_to_end(monkeypatch, tmp_path, lambda *_: None, job)
    assert run.job["status"]["conditions"][0]["reason"] == "DeadlineExceeded"
    assert sorted(processes.stopped) == [0, 1]
