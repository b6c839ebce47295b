"""What is said of runs that workers share, that are resumed, and that are rolled back to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fourways_api import ProgressStatus, parse
from fourways_operator.events import events_of
from fourways_operator.facts import Facts
from fourways_operator.metrics import Metrics
from fourways_operator.status import status_of
from fourways_operator.work_queue import Key
from tests.kit.status_facts import (
    DIGEST,
    FAILED_RUN,
    GOOD_RUN,
    conditions,
    deployment,
    ended,
    facts,
    job,
    pod,
)

BATCH: dict[str, Any] = {"schedule": "0 3 * * *", "source": {"uri": "pvc://t/rows.parquet"}}
SHARED = deployment(batch={**BATCH, "workers": 3})
AT = "2026-03-02T03:00:00Z"


def shared(outcome: str | None = None, reason: str = "", **status: Any) -> dict:
    made = job("m-2", AT, outcome, reason)
    return {**made, "spec": {"completions": 3}, "status": made["status"] | status}


def of_worker(index: int, state: dict, at: str = AT, **more: Any) -> dict:
    made = pod("m-2", state, **more)
    labels = {**made["metadata"]["labels"], "batch.kubernetes.io/job-completion-index": str(index)}
    meta = {"name": f"m-2-{index}", "creationTimestamp": at, "labels": labels}
    return {**made, "metadata": meta}


def seen(job: dict, *pods: dict) -> Facts:
    return replace(facts(raw=SHARED), children=(job,), pods=pods)


def last_run(facts: Facts) -> dict:
    last: dict = status_of(facts, (), parse(facts.deployment))["lastRun"]
    return last


PUBLISHED = ended(0, outcome="Succeeded", rows=10, rejects=1, digest=DIGEST, version="2")
STOPPED = ended(143, outcome="Failed", reason="Terminated", message="stopped before it finished")
BAD_MODEL = ended(3, outcome="Failed", reason="DigestMismatch", message="not the same bytes")


def test_a_run_tells_how_many_workers_are_at_it() -> None:
    at_work = seen(shared(active=2), of_worker(0, {"running": {}}))
    assert last_run(at_work)["workers"] == "2/3"
    assert "2/3 workers" in conditions(at_work)["Progressing"]["message"]


def test_a_suspended_run_says_what_it_waits_for() -> None:
    made = shared()
    waiting = conditions(seen({**made, "spec": {**made["spec"], "suspend": True}}))
    assert (waiting["Progressing"]["status"], waiting["Progressing"]["reason"]) == (
        "True",
        "RunSuspended",
    )
    assert "Kueue" in waiting["Progressing"]["message"]
    assert "has not started" in waiting["Ready"]["message"]


@pytest.mark.parametrize("condition", ["SuccessCriteriaMet", "Complete"])
def test_a_run_is_published_by_its_first_worker_that_says_so(condition: str) -> None:
    """The others are told to stop: that is no trouble, whichever pod is the youngest."""
    done = seen(
        shared(condition, "SuccessPolicy"),
        of_worker(0, PUBLISHED),
        of_worker(1, STOPPED, "2026-03-02T04:00:00Z"),
    )
    last = last_run(done)
    assert (last["outcome"], last["rows"], last["rejects"]) == ("Succeeded", 10, 1)
    assert last["finishedAt"] == AT
    assert "workers" not in last
    said = conditions(done)
    assert said["Ready"]["status"] == "True"
    assert said["Degraded"]["status"] == "False"


def test_workers_lost_for_good_are_named_beside_the_run_they_did_not_stop() -> None:
    done = seen(shared("Complete", failedIndexes="1"), of_worker(0, PUBLISHED))
    assert "without worker 1" in last_run(done)["message"]
    assert conditions(done)["Degraded"]["status"] == "False"


def test_trouble_names_the_worker_that_has_it() -> None:
    """And not the ones that were stopped because of it."""
    failed = seen(
        shared("Failed", "PodFailurePolicy"),
        of_worker(2, STOPPED, "2026-03-02T04:00:00Z"),
        of_worker(1, BAD_MODEL),
    )
    said = conditions(failed)["Degraded"]
    assert said["reason"] == "DigestMismatch"
    assert said["message"] == "run m-2 failed: worker 1: not the same bytes"


def test_a_worker_in_trouble_while_others_work_degrades_the_run() -> None:
    oom = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    said = conditions(seen(shared(active=2), of_worker(1, oom)))
    assert said["Degraded"]["reason"] == "OOMKilled"
    assert "worker 1: " in said["Degraded"]["message"]
    assert said["Progressing"]["status"] == "True"


def test_a_worker_whose_node_was_drained_is_no_trouble() -> None:
    taken = {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
    said = conditions(seen(shared(active=3), of_worker(1, STOPPED, **taken)))
    assert said["Degraded"]["status"] == "False"


def test_a_run_given_up_by_every_worker_says_so() -> None:
    said = conditions(seen(shared("Failed", "FailedIndexes", failedIndexes="0-2")))
    assert said["Degraded"]["reason"] == "FailedIndexes"
    assert "backoffLimit" in said["Degraded"]["message"]


# ---------------------------------------------------------------- resumed


def told_of(run: str, name: str, at: str, outcome: str | None, **labels: str) -> dict:
    made = job(name, at, outcome)
    variables = [{"name": "FOURWAYS_RUN", "value": run}]
    container = {"name": "batch", "env": variables}
    spec = {"completions": 1, "template": {"spec": {"containers": [container]}}}
    return {**made, "metadata": {**made["metadata"], "labels": labels}, "spec": spec}


def test_a_run_that_is_gone_on_with_keeps_its_name() -> None:
    resumed = told_of("m-2", "m-again", "2026-03-02T05:00:00Z", "Complete")
    status = status_of(
        facts((resumed, pod("m-again", PUBLISHED)), FAILED_RUN, GOOD_RUN), (), parse(deployment())
    )
    assert (status["lastRun"]["name"], status["lastRun"]["job"]) == ("m-2", "m-again")
    assert status["lastPublished"]["name"] == "m-2"
    by_type = {c["type"]: c for c in status["conditions"]}
    assert by_type["Degraded"]["status"] == "False"


# ---------------------------------------------------------------- rolled back

BAD_RUN = (
    job("m-2", AT, "Complete"),
    pod("m-2", ended(0, outcome="Succeeded", rows=3, rejects=0, digest=DIGEST, version="3")),
)


def rollback(outcome: str | None, state: dict, at: str = "2026-03-02T06:00:00Z") -> tuple:
    labels = {"fourways.dev/rollback": "true"}
    return told_of("m-1", "m-back", at, outcome, **labels), pod("m-back", state)


MOVED = ended(0, outcome="Succeeded", run="m-1", rows=10, rejects=1, version="2")


def test_after_a_rollback_answers_come_from_the_earlier_run() -> None:
    moved = facts(rollback("Complete", MOVED), BAD_RUN, GOOD_RUN)
    status = status_of(moved, (), parse(deployment()))
    published = status["lastPublished"]
    assert (published["name"], published["job"], published["rows"]) == ("m-1", "m-back", 10)
    assert status["lastRun"]["name"] == "m-2"  # it is no run itself
    assert status["model"]["version"] == "2"
    assert "m-1 (10 rows)" in conditions(moved)["Ready"]["message"]


def test_a_rollback_lasts_until_the_next_run_and_outlives_its_job() -> None:
    moved = facts(rollback("Complete", MOVED), BAD_RUN, GOOD_RUN)
    remembered = {**deployment(), "status": status_of(moved, (), parse(deployment()))}
    later = status_of(facts(BAD_RUN, GOOD_RUN, raw=remembered), (), parse(deployment()))
    assert later["lastPublished"]["name"] == "m-1"
    next_run = (job("m-3", "2026-03-03T03:00:00Z", "Complete"), pod("m-3", PUBLISHED))
    after = status_of(facts(next_run, BAD_RUN, raw=remembered), (), parse(deployment()))
    assert after["lastPublished"]["name"] == "m-3"


def test_a_rollback_that_failed_says_why_until_the_next_run() -> None:
    refused = ended(2, outcome="Failed", reason="ConfigError", message="the store has no run m-1")
    failed = facts(rollback("Failed", refused), BAD_RUN, GOOD_RUN)
    said = conditions(failed)
    assert said["Degraded"]["message"] == "rollback m-back failed: the store has no run m-1"
    assert "m-2" in said["Ready"]["message"]
    next_run = (job("m-3", "2026-03-03T03:00:00Z"), pod("m-3", {"running": {}}))
    said = conditions(facts(next_run, rollback("Failed", refused), BAD_RUN))
    assert said["Degraded"]["status"] == "False"


def test_each_published_run_and_each_rollback_is_an_event() -> None:
    def told(*runs: tuple) -> dict:
        return status_of(facts(*runs), (), parse(deployment()))

    first, second = told(GOOD_RUN), told(BAD_RUN, GOOD_RUN)
    back = told(rollback("Complete", MOVED), BAD_RUN, GOOD_RUN)
    assert [e.message for e in events_of(first, second)] == [
        "predictions come from run m-2 (3 rows, 0 rejected)"
    ]
    assert [e.message for e in events_of(second, back)] == [
        "predictions come from run m-1 (10 rows, 1 rejected)"
    ]
    assert events_of(back, back) == []


def test_runs_are_counted_as_they_end() -> None:
    metrics, key = Metrics(), Key("demo", "m")

    def count(outcome: str) -> float | None:
        return metrics.registry.get_sample_value("fourways_runs_total", {"outcome": outcome})

    def tell(*runs: tuple) -> None:
        metrics.seen(key, status_of(facts(*runs), (), parse(deployment())))

    tell(GOOD_RUN)  # it had ended before
    assert count("Succeeded") is None
    tell((shared(active=1), of_worker(0, {"running": {}})), GOOD_RUN)
    tell(BAD_RUN, GOOD_RUN)
    tell(BAD_RUN, GOOD_RUN)
    assert (count("Succeeded"), count("Failed")) == (1.0, None)


# ---------------------------------------------------------------- progress

FIGURES = ProgressStatus(
    rows=5_000,
    total_rows=20_000,
    rejects=3,
    rows_per_second=1230.0,
    estimated_completion="2026-03-02T03:00:15Z",
    updated_at="2026-03-02T03:00:05Z",
)


def at_work(**known: ProgressStatus) -> Facts:
    found = seen(shared(active=2), of_worker(0, {"running": {}}))
    return replace(found, progress={name.replace("_", "-"): p for name, p in known.items()})


def remembering(status: dict, facts: Facts) -> Facts:
    return replace(facts, deployment={**facts.deployment, "status": status})


def status_at(facts: Facts) -> dict:
    return status_of(facts, (), parse(facts.deployment))


def test_a_run_at_work_tells_how_far_it_is() -> None:
    told = last_run(at_work(m_2=FIGURES))
    assert (told["workers"], told["progress"]) == ("2/3", FIGURES.to_json())
    assert "rows" not in told  # nothing is published yet
    assert "progress" not in last_run(at_work(m_1=FIGURES))  # another run's
    assert "progress" not in last_run(at_work())


def test_what_was_told_stays_until_the_gateway_tells_anew() -> None:
    """Also when the operator was started again, and knows nothing yet."""
    before = status_at(at_work(m_2=FIGURES))
    assert status_at(remembering(before, at_work())) == before
    newer = FIGURES.model_copy(update={"rows": 9_000})
    told = status_at(remembering(before, at_work(m_2=newer)))
    assert told["lastRun"]["progress"]["rows"] == 9_000


def test_a_run_that_ended_has_figures_and_no_progress() -> None:
    before = status_at(at_work(m_2=FIGURES))
    done = replace(seen(shared("Complete"), of_worker(0, PUBLISHED)), progress={"m-2": FIGURES})
    told = last_run(remembering(before, done))
    assert (told["rows"], "progress" in told) == (10, False)


def test_a_run_gone_on_with_does_not_show_what_was_told_of_the_job_before() -> None:
    before = status_at(at_work(m_2=FIGURES))
    resumed = told_of("m-2", "m-again", "2026-03-02T05:00:00Z", None)
    again = replace(facts((resumed, pod("m-again", {"running": {}})), raw=SHARED), progress={})
    assert "progress" not in last_run(remembering(before, again))


def test_a_run_whose_job_was_taken_away_is_not_at_work_for_ever() -> None:
    before = status_at(at_work(m_2=FIGURES))
    gone = last_run(remembering(before, facts(raw=SHARED)))
    assert (gone["outcome"], gone["name"]) == ("Failed", "m-2")
    assert "fourways list-runs m" in gone["message"]
    assert not {"progress", "workers"} & gone.keys()


def told_events(old: dict, new: dict) -> list[tuple[str, str]]:
    return [(e.reason, e.message) for e in events_of(old, new)]


def test_each_quarter_of_a_run_is_an_event_once() -> None:
    def at(rows: int) -> dict:
        return status_at(at_work(m_2=FIGURES.model_copy(update={"rows": rows})))

    assert told_events(at(0), at(4_999)) == []
    assert told_events(at(4_999), at(5_000)) == [
        (
            "RunProgress",
            "run m-2: 25%: 5,000 of 20,000 rows, 1,230 rows/s, 3 rejected, "
            "done at about 2026-03-02T03:00:15Z",
        ),
    ]
    assert told_events(at(5_000), at(9_999)) == []
    assert [m[:12] for _, m in told_events(at(5_000), at(19_999))] == ["run m-2: 75%"]
    assert told_events(at(19_999), at(20_000)) == []  # that it is done is told otherwise
    unknown = FIGURES.model_copy(update={"total_rows": None})
    assert told_events(at(0), status_at(at_work(m_2=unknown))) == []


def test_that_the_first_run_is_under_way_warns_nobody() -> None:
    first = status_of(facts(), (), parse(deployment()))
    assert {e.type for e in events_of(first, status_at(at_work(m_2=FIGURES)))} == {"Normal"}


def test_a_run_that_fails_as_the_one_before_is_an_event_too() -> None:
    def after(*runs: tuple, old: dict) -> dict:
        return status_of(facts(*runs, raw={**deployment(), "status": old}), (), parse(deployment()))

    second = (job("m-3", "2026-03-03T03:00:00Z", "Failed"), pod("m-3", BAD_MODEL))
    once = after(FAILED_RUN, GOOD_RUN, old={})
    twice = after(second, FAILED_RUN, GOOD_RUN, old=once)
    (event,) = events_of(once, twice)
    assert (event.type, event.reason) == ("Warning", "RunFailed")
    assert event.message == "run m-3 failed: not the same bytes"
    assert events_of(twice, twice) == []
    # The first time the condition says it.
    ready = after(GOOD_RUN, old={})
    assert {e.reason for e in events_of(ready, once) if e.type == "Warning"} == {"DigestMismatch"}


@pytest.mark.parametrize("words", ["", None])
def test_a_run_that_ended_well_without_a_word_published_nothing(words: str | None) -> None:
    state = {"exitCode": 0} if words is None else {"exitCode": 0, "message": words}
    found = facts(
        (job("m-3", "2026-03-02T03:00:00Z", "Complete"), pod("m-3", {"terminated": state}))
    )
    told = conditions(found)
    assert told["Ready"]["status"] == "False"
    assert told["Degraded"]["reason"] == "WorkerFailed"
    assert "exited with code 0 without a termination message" in told["Degraded"]["message"]
    assert last_run(found)["outcome"] == "Failed"


def test_a_run_whose_pods_are_gone_is_believed_its_job() -> None:
    done, _ = GOOD_RUN
    found = replace(facts((done, pod("m-1", {"running": {}}))), pods=())
    assert conditions(found)["Ready"]["status"] == "True"


def test_a_run_whose_pods_are_evicted_again_and_again_says_so() -> None:
    def evicted(number: int) -> dict:
        gone = pod("m-2", {"terminated": {"exitCode": 137}})
        gone["metadata"] |= {
            "name": f"m-2-{number}",
            "creationTimestamp": f"2026-03-02T0{number}:00:00Z",
        }
        gone["status"] |= {
            "phase": "Failed",
            "reason": "Evicted",
            "message": f"low on memory {number}",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
        }
        return gone

    under_way = facts((job("m-2", AT), pod("m-2", {"running": {}})))
    once = replace(under_way, pods=(*under_way.pods, evicted(3)))
    assert conditions(once)["Degraded"]["status"] == "False"
    again = replace(once, pods=(*once.pods, evicted(4)))
    told = conditions(again)["Degraded"]
    assert (told["status"], told["reason"]) == ("True", "Evicted")
    assert told["message"].endswith(
        "2 of its pods were evicted; the last: its pod was ended: low on memory 4"
    )
