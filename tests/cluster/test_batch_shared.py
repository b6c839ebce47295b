"""Batch in full on a cluster: workers that share a run, on the trial PostgreSQL, and its record."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import httpx
import pytest

from fourways_operator.facts import Json
from tests.kit.cluster.batch_rig import (
    ENOUGH,
    compared,
    ended,
    last_run,
    outcomes,
    records,
    slow_store,
)
from tests.kit.cluster.modes_rig import NAMESPACE, Plant
from tests.kit.cluster.told import tell
from tests.kit.waiting import until
from tools.torture import cluster as rig
from tools.torture.cluster import NAME, Torture, document
from tools.torture.witness import Outcome, Witness, check_equal

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

KILLS = 2
"""Enough for one run; `make torture-batch-cluster` kills more."""

CALM = "calm"
FEW_FILES = f"pvc://{rig.CLAIM}/rows/0[0-3].parquet"


@pytest.fixture(scope="module")
def shared(tortured: Plant) -> Iterator[Plant]:
    """A deployment whose runs are shared by two workers."""
    with tortured.deployed(document()):
        yield tortured


@pytest.fixture(scope="module")
def witness(shared: Plant) -> Iterator[Witness]:
    with rig.witnessing(shared.cluster, NAMESPACE) as found:
        yield found


@pytest.fixture(scope="module")
def torture(shared: Plant, witness: Witness) -> Torture:
    return Torture(shared.cluster, NAMESPACE, witness, random.Random(1))


@pytest.fixture(scope="module")
def calm(torture: Torture) -> Outcome:
    """What comes of a run that nothing befalls."""
    return torture.undisturbed(CALM)


def published(plant: Plant) -> str:
    """Return the run that status says answers come from."""
    return str(plant.deployment(NAME)["status"]["lastPublished"]["name"])


# ---------------------------------------------------------------- shared


def test_two_workers_share_a_run_and_publish_it_once(
    shared: Plant, witness: Witness, calm: Outcome
) -> None:
    predictions, rejects = calm
    done = witness.data.rows(
        "SELECT count(*), count(DISTINCT c.owner) FROM @chunks c "
        "JOIN @runs r ON r.id = c.run_id WHERE r.name = ? AND c.state = 'done'",
        (CALM,),
    )
    assert done == [(rig.FILES, 2)]
    run = ended(shared, CALM, NAME)
    assert (run["outcome"], run["rejects"]) == ("Succeeded", len(rejects))
    assert run["rows"] == len(predictions)
    assert "progress" not in run
    (record,) = records(shared, NAME)
    assert (record["state"], record["current"]) == ("published", True)
    assert published(shared) == CALM


def test_workers_killed_at_random_moments_change_nothing(torture: Torture, calm: Outcome) -> None:
    tell(rig.torture(torture, calm, KILLS, said=tell))


def test_the_record_is_told_compared_and_gone_back_in(shared: Plant, calm: Outcome) -> None:
    latest = published(shared)
    assert latest != CALM
    known = {record["name"]: record for record in records(shared, NAME)}
    assert {name for name, record in known.items() if record["current"]} == {latest}
    assert known[CALM]["rows"] == known[latest]["rows"] == len(calm[0])
    difference = compared(shared, NAME, CALM, latest)
    assert (difference["common"], difference["changed"]) == (len(calm[0]), 0)
    assert (difference["only_before"], difference["only_after"]) == (0, 0)
    key = str(calm[0][0][0])
    with shared.gateway() as url:
        path = f"{url}/predictions/{NAME}/{key}"
        before = httpx.get(path, trust_env=False).json()
        shared.fourways("rollback", NAME, CALM)
        after = until(
            lambda: (a := httpx.get(path, trust_env=False).json())["run"] == CALM and a,
            "answers come from the old run",
            seconds=30,
        )
    assert (before["run"], after["outputs"]) == (latest, before["outputs"])
    assert published(shared) == CALM


# ---------------------------------------------------------------- progress, deadline, resume


def test_progress_is_seen_and_a_run_out_of_time_is_gone_on_with(
    shared: Plant, witness: Witness, calm: Outcome
) -> None:
    run = "late"
    witness.begin()
    with slow_store(shared, 6):
        rig.start(shared.cluster, NAMESPACE, run)

        def look() -> Json | None:
            last = last_run(shared, NAME)
            progress = last.get("progress") or {}
            return progress if last.get("name") == run and progress.get("rows") else None

        progress: Json = until(look, "progress in status", seconds=ENOUGH)
        late = json.dumps({"spec": {"activeDeadlineSeconds": 1}})
        shared.cluster.kubectl("-n", NAMESPACE, "patch", "job", run, "-p", late)
    assert 0 < progress["rows"] < progress["totalRows"] == rig.FILES * rig.ROWS_A_FILE
    assert progress["rowsPerSecond"] > 0
    assert progress["estimatedCompletion"] > progress["updatedAt"]
    # Asked a moment later than the sum.
    assert sum(worker["rows"] for worker in progress["workers"]) >= progress["rows"]
    said = ended(shared, run, NAME)
    assert said["outcome"] == "Failed"
    shared.said(NAME, "Degraded", status="True", reason="DeadlineExceeded")
    assert published(shared) == CALM
    witness.compare(run)
    recorded = len(witness.recorded)
    assert recorded

    shared.fourways("start-run", NAME, "--resume", run)
    witness.compare(run)  # what was recorded before the deadline was not touched
    check_equal(calm, witness.outcome(run))
    last = last_run(shared, NAME)
    assert (last["name"], last["outcome"]) == (run, "Succeeded")
    assert last["job"] != run
    shared.said(NAME, "Degraded", status="False")
    tell(f"a run out of time with {recorded} of {rig.FILES} parts recorded: the rest by --resume")


# ---------------------------------------------------------------- one slot, disruptions, queues


def test_two_jobs_for_one_time_and_an_evicted_worker_do_no_harm(shared: Plant) -> None:
    """Without a single retry allowed: a disruption does not count."""
    few = {"workers": 1, "backoffLimit": 0, "source": {"uri": FEW_FILES}}
    with shared.deployed(document("twins", **few)) as timeline:
        for job in ("twin-1", "twin-2"):
            rig.start(shared.cluster, NAMESPACE, job, "twins")
        (pod,) = until(
            lambda: rig.running_pods(shared.cluster, NAMESPACE, "twin-1"), "twin-1 runs", seconds=60
        )
        evict(shared, pod["metadata"]["name"])
        assert outcomes(shared, "twin-1", "twin-2") == ["Succeeded", "Succeeded"]
        timeline.mark("both published")
        job = shared.cluster.get("-n", NAMESPACE, "job", "twin-1")
        assert not job["status"].get("failedIndexes")
        status = shared.said("twins", "Degraded", status="False")
        known = {record["name"]: record for record in records(shared, "twins")}
        assert {r["state"] for r in known.values()} == {"published"}
        (current,) = (name for name, record in known.items() if record["current"])
        published = {name: record["published_at"] for name, record in known.items()}
        assert current == max(published, key=lambda name: published[name])
        assert status["lastPublished"]["name"] in known
        with rig.witnessing(shared.cluster, NAMESPACE, "twins") as witness:
            check_equal(witness.outcome("twin-1"), witness.outcome("twin-2"))
    timeline.tell()


def evict(plant: Plant, pod: str) -> None:
    """Take a pod away as a drained node does."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    plant.api.request("post", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", body)


def test_a_run_waits_for_the_queue_it_is_labelled_with(shared: Plant) -> None:
    """Kueue finds Jobs by their label, and suspends them until there is room."""
    with shared.deployed(document("queued", queueName="team", suspend=True)):
        rig.await_planned(shared.cluster, NAMESPACE, "queued")
        cron = shared.cluster.get("-n", NAMESPACE, "cronjob", "queued-batch")
        assert cron["spec"]["suspend"]
        template = cron["spec"]["jobTemplate"]
        assert template["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "queued-1", **template["metadata"]},
            "spec": {**template["spec"], "suspend": True},
        }
        shared.cluster.kubectl("-n", NAMESPACE, "create", "-f", "-", stdin=json.dumps(job))
        status = shared.said("queued", "Progressing", status="True", reason="RunSuspended")
        assert "nextRun" not in status
        assert shared.pods("queued") == []
        shared.cluster.kubectl("-n", NAMESPACE, "delete", "job", "queued-1")
        gone = shared.said("queued", "Progressing", status="False")
        assert gone["lastRun"]["outcome"] == "Failed"
