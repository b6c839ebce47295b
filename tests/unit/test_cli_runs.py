"""The commands about runs, against a target in memory; and the Jobs that are made by hand."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import Result

from fourways_api import parse
from fourways_cli import deployment_runs, jobs, target_command
from fourways_cli.main import app
from fourways_cli.targets import Json, TargetError
from fourways_cli.watch import line_of
from fourways_operator import planning as planner
from fourways_operator.facts import OperatorSettings
from tests.kit.cli import CliRunner

GOLDEN = Path(__file__).parents[1] / "golden" / "plan"
SETTINGS = OperatorSettings(runtime_image="fourways-runtime:dev")
PROGRESS = {
    "state": "scoring",
    "rows": 5_000,
    "total_rows": 20_000,
    "rejects": 3,
    "chunks": 4,
    "chunks_done": 1,
    "rows_per_second": 1000.0,
    "eta_seconds": 15.0,
    "workers": [
        {
            "name": "a/0",
            "rows": 4_000,
            "rejects": 3,
            "rows_per_second": 800.0,
            "chunks": 1,
            "alive": True,
        },
        {
            "name": "b/1",
            "rows": 1_000,
            "rejects": 0,
            "rows_per_second": 200.0,
            "chunks": 0,
            "alive": False,
        },
    ],
}


def listed(name: str, published: str | None, **more: Any) -> Json:
    return {
        "name": name,
        "state": "published" if published else "failed",
        "version": "1",
        "digest": "sha256:a",
        "started_at": "2026-03-01T03:00:00+00:00",
        "published_at": published,
        "rows": 1234,
        "rejects": 0,
        "current": False,
        "kind": "full",
        "carried": 0,
        "reason": "",
        "message": "",
    } | more


class MemoryTarget:
    """A Target whose Jobs end once they have been looked at."""

    def __init__(self) -> None:
        self.runs = [
            listed("m-3", None, reason="TooManyRejects", message="9 of 14 [rows]"),
            listed("m-2", "2026-03-01T03:02:05+00:00", current=True),
            listed("m-1", "2026-02-28T03:00:10+00:00"),
        ]
        self.status: Json = {"lastRun": {"name": "m-3", "outcome": "Failed"}, "conditions": []}
        self.started: list[tuple[str, str | None]] = []
        self.asked: list[str] = []
        self.fails = ""
        self.looks = 0

    def where(self, namespace: str | None) -> str:
        return f"here, {namespace}"

    def default_namespace(self) -> str:
        return "default"

    def deployments(self, namespace: str | None) -> list[Json]:
        self.looks += 1
        if self.started and self.looks > 2:
            self._end(*self.started[-1])
        return [{"metadata": {"name": "m", "namespace": namespace}, "status": self.status}]

    def _end(self, kind: str, run: str | None) -> None:
        outcome = {"outcome": "Failed" if self.fails else "Succeeded", "rows": 7, "rejects": 1}
        if kind == "run":
            name = {"name": run, "job": "m-new"} if run else {"name": "m-new"}
            self.status["lastRun"] = {**name, **outcome, "message": self.fails}
        elif self.fails:
            message = f"rollback m-back failed: {self.fails}"
            self.status["conditions"] = [{"type": "Degraded", "message": message}]
        else:
            self.status["lastPublished"] = {"name": run, "job": "m-back", **outcome}

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        self.started.append(("run", resume))
        return "m-new"

    def rollback(self, namespace: str, name: str, run: str) -> str:
        self.started.append(("rollback", run))
        return "m-back"

    def gateway(
        self,
        namespace: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        self.asked.append(path)
        if path == "/runs/m":
            return {"runs": self.runs}
        if path.startswith("/runs/m/diff"):
            shifts = {"p": {"before": 0.25, "after": 0.5}, "q": {"before": None, "after": 1.0}}
            return {
                "difference": {
                    "only_before": 1,
                    "only_after": 2,
                    "common": 200,
                    "changed": 50,
                    "shifts": shifts,
                }
            }
        if path.endswith("/progress"):
            return {"progress": PROGRESS}
        if "/rejects" in path:
            row = {"row": 3, "key": "[c3]", "field": "age", "reason": "-3 is below 0"}
            return {"rejects": [row, {**row, "row": 4, "key": None}]}
        raise TargetError("HTTP 404")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> MemoryTarget:
    made = MemoryTarget()
    monkeypatch.setattr(target_command, "choose_target", lambda state, choice: made)
    monkeypatch.setattr(deployment_runs, "POLL_SECONDS", 0.001)
    return made


def fourways(*args: str) -> Result:
    return CliRunner().invoke(app, [*args], env={"COLUMNS": "160"})


def test_runs_are_listed_with_the_one_answers_come_from(target: MemoryTarget) -> None:
    said = fourways("list-runs", "m")
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    (current,) = (line for line in lines if "current" in line)
    assert "m-2" in current
    assert "2m 5s" in current
    assert "1,234" in current
    (failed,) = (line for line in lines if "m-3" in line)
    assert "TooManyRejects: 9 of 14 [rows]" in failed
    assert orjson.loads(fourways("list-runs", "m", "-o", "json").output) == target.runs


def test_two_runs_are_compared(target: MemoryTarget) -> None:
    said = fourways("compare-runs", "m", "m-1", "m-2")
    assert target.asked == ["/runs/m/diff?from=m-1&to=m-2"]
    rows = {line.strip().split("  ")[0]: line.split() for line in said.output.splitlines()}
    assert rows["keys"][1:] == ["201", "202"]
    assert "(25.0%" in rows["different prediction"]
    assert rows["mean p"][2:] == ["0.25", "0.5"]
    fourways("compare-runs", "m")
    assert target.asked[-2:] == ["/runs/m", "/runs/m/diff?from=m-1&to=m-2"]


def test_rejects_are_of_the_latest_run_unless_named(target: MemoryTarget) -> None:
    said = fourways("rejects", "m")
    assert target.asked[-1] == "/runs/m/m-3/rejects?limit=20"
    assert "[c3]" in said.output
    assert "-3 is below 0" in said.output
    fourways("rejects", "m", "m-1", "--limit", "5")
    assert target.asked[-1] == "/runs/m/m-1/rejects?limit=5"


def test_a_deployment_without_runs_says_so(target: MemoryTarget) -> None:
    target.runs = []
    said = fourways("rejects", "m")
    assert said.exit_code == 1
    assert "no run of m yet" in said.stderr


def test_runs_of_another_mode_are_not_compared(
    target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.runs = []
    (document,) = target.deployments(None)
    other = {**document, "status": {**document["status"], "mode": "realtime"}}
    monkeypatch.setattr(target, "deployments", lambda namespace: [other])
    said = fourways("compare-runs", "m")
    assert said.exit_code == 1
    assert "only batch deployments have runs" in said.stderr


def test_runs_for_programs(target: MemoryTarget) -> None:
    assert yaml.safe_load(fourways("list-runs", "m", "-o", "yaml").output) == target.runs
    assert fourways("list-runs", "m", "-o", "name").output.split() == ["m-3", "m-2", "m-1"]
    assert "sha256:a" in fourways("list-runs", "m", "-o", "wide").output


def test_runs_of_a_deleted_deployment_are_listed_while_the_store_has_them(
    target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "deployments", lambda namespace: [])
    assert "m-2" in fourways("list-runs", "m").output


@pytest.mark.parametrize(
    "arguments",
    [("list-runs", "m"), ("rejects", "m"), ("compare-runs", "m", "a", "b"), ("start-run", "m")],
)
def test_only_batch_deployments_have_runs(
    target: MemoryTarget, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    target.runs, target.status = [], {"mode": "streaming"}
    refusal = TargetError("the store has no run a", 404)
    if arguments[0] == "compare-runs":
        monkeypatch.setattr(target, "gateway", lambda *_, **__: (_ for _ in ()).throw(refusal))
    said = fourways(*arguments)
    assert said.exit_code == 1
    assert "m is a streaming deployment" in said.stderr
    assert target.started == []


def test_runs_that_are_not_there_to_compare_are_named(
    target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = TargetError("the store has no run a", 404)
    monkeypatch.setattr(target, "gateway", lambda *_, **__: (_ for _ in ()).throw(refusal))
    said = fourways("compare-runs", "m", "a", "b")
    assert (said.exit_code, said.stderr) == (1, "the store has no run a\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("runs", "m"), ("list-runs", "m")),
        (("run", "m"), ("start-run", "m")),
        (("diff", "m", "m-1", "m-2"), ("compare-runs", "m", "m-1", "m-2")),
    ],
)
def test_an_old_name_does_the_same_and_says_the_new_one(
    target: MemoryTarget, old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    done = fourways(*old)
    assert done.exit_code == 0, done.output
    assert f"is now `fourways {new[0]}`" in done.stderr
    assert done.stdout == fourways(*new).stdout
    if old[0] == "runs":
        assert fourways(*old, "-o", "json").stderr == ""
    assert "start-run" in fourways("--help").stdout
    assert not re.search(r"^\W*runs? ", fourways("--help").stdout, re.MULTILINE)


# ---------------------------------------------------------------- run


def test_a_run_is_seen_to_its_end(target: MemoryTarget) -> None:
    said = fourways("start-run", "m")
    assert said.exit_code == 0, said.output
    assert "Succeeded: 7 rows, 1 rejected" in said.output
    assert target.started == [("run", None)]


def test_a_resumed_run_is_not_taken_for_its_failed_beginning(target: MemoryTarget) -> None:
    said = fourways("start-run", "m", "--resume", "m-3")
    assert said.exit_code == 0, said.output
    assert target.started == [("run", "m-3")]
    assert "it resumes m-3" in said.output


def test_a_published_run_is_not_resumed(target: MemoryTarget) -> None:
    said = fourways("start-run", "m", "--resume", "m-1")
    assert said.exit_code == 1
    assert "fourways rollback m m-1" in said.stderr
    assert target.started == []


def test_an_unknown_run_is_not_resumed(target: MemoryTarget) -> None:
    said = fourways("start-run", "m", "--resume", "norun")
    assert said.exit_code == 1
    assert "there is no run norun of m; the latest are m-3, m-2, m-1" in said.stderr
    assert target.started == []
    target.runs = []
    assert (
        "the store has no run of it yet" in fourways("start-run", "m", "--resume", "norun").stderr
    )


def test_a_run_that_failed_before_it_recorded_anything_is_resumed(target: MemoryTarget) -> None:
    target.status["lastRun"] = {"name": "m-4", "outcome": "Failed"}
    said = fourways("start-run", "m", "--resume", "m-4", "--wait", "0")
    assert said.exit_code == 0, said.output
    assert target.started == [("run", "m-4")]


def test_a_watched_run_shows_what_is_recorded(target: MemoryTarget) -> None:
    said = fourways("start-run", "m", "--watch", "--resume", "m-3")
    assert said.exit_code == 0, said.output
    assert "5,000 of 20,000 rows, 1,000 rows/s, 3 rejected, 15s left" in said.output
    assert "/runs/m/m-3/progress" in target.asked


def test_a_failed_run_ends_with_its_reason(target: MemoryTarget) -> None:
    target.fails = "not the same bytes"
    said = fourways("start-run", "m")
    assert said.exit_code == 1
    assert "not the same bytes" in said.stderr


def test_a_run_that_takes_longer_than_one_waits_goes_on(target: MemoryTarget) -> None:
    target.looks = -(10**9)
    said = fourways("start-run", "m", "--wait", "0.01")
    assert said.exit_code == 1
    assert "it continues" in said.stderr


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"total_rows": None, "eta_seconds": None}, "5,000 rows, 1,000 rows/s, 3 rejected"),
        ({"rejects": 0, "eta_seconds": 3725}, "5,000 of 20,000 rows, 1,000 rows/s, 1h 2m left"),
        ({"rejects": 0, "state": "published"}, "5,000 of 20,000 rows, 1,000 rows/s, published"),
    ],
)
def test_progress_in_a_line(change: Json, line: str) -> None:
    assert line_of({**PROGRESS, **change}) == line


# ---------------------------------------------------------------- rollback


def test_a_rollback_goes_to_the_run_before_by_name(target: MemoryTarget) -> None:
    said = fourways("rollback", "m")
    assert said.exit_code == 0, said.output
    assert target.started == [("rollback", "m-1")]
    assert "predictions come from run m-1" in said.output


def test_a_rollback_to_a_named_run_needs_no_gateway(target: MemoryTarget) -> None:
    assert fourways("rollback", "m", "m-0").exit_code == 0
    assert target.started == [("rollback", "m-0")]
    assert target.asked == []


def test_a_rollback_without_an_earlier_run_starts_nothing(target: MemoryTarget) -> None:
    target.runs = target.runs[:2]
    said = fourways("rollback", "m")
    assert said.exit_code == 1
    assert "no run of m published before m-2" in said.stderr
    assert target.started == []


def test_a_rollback_that_failed_says_why(target: MemoryTarget) -> None:
    target.fails = "the store has no run m-1"
    said = fourways("rollback", "m")
    assert said.exit_code == 1
    assert "the store has no run m-1" in said.stderr


# ---------------------------------------------------------------- Jobs by hand


@pytest.fixture(scope="module")
def cron() -> Json:
    deployment = parse(yaml.safe_load((GOLDEN / "batch-shared.in.yaml").read_text()))
    (found,) = (o for o in planner.plan(deployment, SETTINGS) if o["kind"] == "CronJob")
    return {**found, "metadata": {**found["metadata"], "uid": "cron-uid"}}


def variables(job: Json) -> dict[str, Json]:
    return {v["name"]: v for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}


def test_a_run_by_hand_is_the_run_the_schedule_would_start(cron: Json) -> None:
    before = copy.deepcopy(cron)
    job = jobs.run_job(cron)
    assert job["spec"] == cron["spec"]["jobTemplate"]["spec"]
    assert job["metadata"]["labels"] == cron["spec"]["jobTemplate"]["metadata"]["labels"]
    assert job["metadata"]["generateName"] == "batch-shared-batch-"
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("cron-uid", True)
    assert cron == before


def test_a_resumed_run_differs_in_nothing_but_the_run_it_is(cron: Json) -> None:
    job, plain = jobs.run_job(cron, "m-1"), jobs.run_job(cron)
    assert variables(job).pop("FOURWAYS_RUN") == {"name": "FOURWAYS_RUN", "value": "m-1"}
    assert "valueFrom" in variables(plain)["FOURWAYS_RUN"]
    for made in (job, plain):
        del made["spec"]["template"]["spec"]["containers"][0]["env"]
    assert job == plain


def test_one_run_may_have_another_priority(cron: Json) -> None:
    job, plain = jobs.run_job(cron, priority="backfill"), jobs.run_job(cron)
    assert plain["spec"]["template"]["spec"]["priorityClassName"] == "nightly"
    assert job["spec"]["template"]["spec"].pop("priorityClassName") == "backfill"
    del plain["spec"]["template"]["spec"]["priorityClassName"]
    assert job == plain


def test_a_rollback_scores_nothing_and_waits_in_no_queue(cron: Json) -> None:
    job = jobs.rollback_job(cron, "m-1")
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["rollback"]
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    assert variables(job)["FOURWAYS_RUN"]["value"] == "m-1"
    labels = job["metadata"]["labels"]
    assert labels["fourways.dev/rollback"] == "true"
    assert "kueue.x-k8s.io/queue-name" not in labels
    # By its labels the operator finds it, and the network policy its pod.
    assert labels["fourways.dev/deployment"] == "batch-shared"
