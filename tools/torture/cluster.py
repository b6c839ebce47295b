"""Kill batch workers on a cluster at random moments, and compare what they publish.

``python -m tools.torture.cluster [--kills N] [--seed N]``

It does to pods of a real deployment what ``tools.torture.batch`` does to processes. Two workers use
the trial PostgreSQL. A worker's container is killed (SIGKILL) or its pod deleted, and Kubernetes
starts another. Exits with 1 and names the differences if a run differs.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fourways_runtime.io.store import open_run_store
from tools.installation import Cluster, build_images, cluster_up

from .material import CONTRACT, model, table
from .witness import Broken, Outcome, Witness, check_equal

Json = dict[str, Any]

NAMESPACE = "fourways-torture"
NAME = CLAIM = "tortured"
FILES, ROWS_A_FILE = 24, 4096
"""One file per chunk, so that a worker can be killed in the middle of one."""

WIDTH = 768
RUN_SECONDS = 240.0
KILLS_A_RUN = 3
"""Kubernetes doubles the delay before each retry of a worker."""

NO_MORE: Mapping[str, pa.Table] = {}
DATABASE = "fourways-trial-postgresql-0"


def document(name: str = NAME, **batch: Any) -> Json:
    """Return a deployment whose runs two workers share for a while; ``batch`` replaces settings."""
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "mode": "batch",
            "model": {"uri": f"pvc://{CLAIM}/model.onnx", "version": "1"},
            "contract": CONTRACT,
            "batch": {
                "schedule": "0 0 29 2 *",
                "source": {"uri": f"pvc://{CLAIM}/rows/"},
                "workers": 2,
                "maxRejects": "10%",
                "backoffLimit": 20,
                "historyLimit": 20,
                "keepRuns": 50,
                **batch,
            },
            "resources": {"cpu": "500m", "memory": "512Mi"},
        },
    }


def fill(cluster: Cluster, namespace: str, more: Mapping[str, pa.Table] = NO_MORE) -> None:
    """Copy the table and the model, and the tables in ``more``, to where the deployment reads
    them."""
    whole = table(FILES * ROWS_A_FILE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model(WIDTH))
        (folder / "rows").mkdir()
        for number in range(FILES):
            part = whole.slice(number * ROWS_A_FILE, ROWS_A_FILE)
            pq.write_table(part, folder / "rows" / f"{number:02}.parquet")
        for path, part in more.items():
            (folder / path).parent.mkdir(exist_ok=True)
            pq.write_table(part, folder / path)
        cluster.fill_claim(namespace, folder, CLAIM)


@contextmanager
def witnessing(cluster: Cluster, namespace: str, name: str = NAME) -> Iterator[Witness]:
    """Query the trial PostgreSQL from this machine."""
    secret = cluster.get("-n", namespace, "secret", "fourways-store")["data"]["uri"]
    given = urlsplit(base64.b64decode(secret).decode())
    with cluster.forwarded(namespace, f"pod/{DATABASE}", 5432) as url:
        here = given._replace(netloc=f"{given.username}:{given.password}@{urlsplit(url).netloc}")
        writer = open_run_store(here.geturl())
        try:
            yield Witness(writer.database, namespace, name)
        finally:
            writer.close()


@dataclass
class Torture:
    """Runs of the deployment, and the disturbances of their workers."""

    cluster: Cluster
    namespace: str
    witness: Witness
    chance: random.Random
    kills: int = 0

    def undisturbed(self, run: str) -> Outcome:
        """Run undisturbed; return the result. Raises Broken."""
        return self.disturbed(run, 0)

    def disturbed(self, run: str, kills: int) -> Outcome:
        """Run while workers are killed, up to ``kills`` times. Raises Broken."""
        self.witness.begin()
        start(self.cluster, self.namespace, run)
        left = kills
        deadline = time.monotonic() + RUN_SECONDS
        while (state := state_of(self.cluster, self.namespace, run)) == "Running":
            self.witness.compare(run)
            if time.monotonic() > deadline:
                raise Broken(f"run {run} did not end in {RUN_SECONDS:g} s")
            time.sleep(self.chance.uniform(0.2, 2.0))
            victims = running_pods(self.cluster, self.namespace, run)
            if left and victims and self._strike(self.chance.choice(victims)):
                left -= 1
                self.kills += 1
        self.witness.compare(run)
        if state != "Succeeded":
            raise Broken(f"run {run} ended as {state}")
        return self.witness.outcome(run)

    def _strike(self, pod: Json) -> bool:
        if self.chance.random() < 0.5 and kill_container(pod):
            return True
        with suppress(RuntimeError):  # it no longer exists
            name = pod["metadata"]["name"]
            self.cluster.kubectl("-n", self.namespace, "delete", "pod", name, "--wait=false")
            return True
        return False


def start(cluster: Cluster, namespace: str, run: str, name: str = NAME) -> None:
    """Start a run under a name, as ``kubectl create job --from`` does."""
    await_planned(cluster, namespace, name)
    cluster.kubectl("-n", namespace, "create", "job", run, f"--from=cronjob/{name}-batch")


def await_planned(cluster: Cluster, namespace: str, name: str) -> None:
    """Wait until a deployment has its CronJob."""
    cron = f"cronjob/{name}-batch"
    cluster.kubectl("-n", namespace, "wait", "--for=create", cron, "--timeout=30s")


def state_of(cluster: Cluster, namespace: str, job: str) -> str:
    """Return the state of a Job: Running, Succeeded or Failed."""
    conditions = cluster.get("-n", namespace, "job", job).get("status", {}).get("conditions", [])
    met = {c["type"] for c in conditions if c["status"] == "True"}
    if met & {"Complete", "SuccessCriteriaMet"}:
        return "Succeeded"
    return "Failed" if "Failed" in met else "Running"


def running_pods(cluster: Cluster, namespace: str, job: str) -> list[Json]:
    """Return a Job's pods that have a running container and are not terminating."""
    label = f"batch.kubernetes.io/job-name={job}"
    items: list[Json] = cluster.get("-n", namespace, "pods", "-l", label)["items"]
    return [
        pod
        for pod in items
        if "deletionTimestamp" not in pod["metadata"]
        and any("running" in s["state"] for s in pod["status"].get("containerStatuses", []))
    ]


def kill_container(pod: Json) -> bool:
    """SIGKILL the processes of a pod's containers if the node is this machine; return whether any
    was killed.

    From outside, because no process within a container can kill its first process.
    """
    containers = [s["containerID"].rpartition("/")[2] for s in pod["status"]["containerStatuses"]]
    killed = False
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not visible to us
            groups = (process / "cgroup").read_text()
            if any(container in groups for container in containers):
                os.kill(int(process.name), signal.SIGKILL)
                killed = True
    return killed


def torture(work: Torture, calm: Outcome, kills: int, said: Callable[[str], object] = print) -> str:
    """Kill ``kills`` workers, a few in each run; return a one-line summary.

    Raises:
        Broken: a run differs from the undisturbed one, ``calm``.
    """
    if not (calm[0] and calm[1]):
        raise Broken("the table gives no predictions or no rejects")
    runs = 0
    while work.kills < kills:
        runs += 1
        wild = work.disturbed(f"wild-{runs}", min(KILLS_A_RUN, kills - work.kills))
        check_equal(calm, wild)
        said(f"run {runs}: {work.kills} kills so far")
    return (
        f"{work.kills} kills in {runs} runs of {len(calm[0])} predictions and {len(calm[1])} "
        "rejects on the cluster: each equal to the undisturbed run, no recorded chunk touched"
    )


def main() -> int:
    """Run from the command line, in a temporary namespace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    cluster = Cluster(cluster_up(), build_images())
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    cluster.make_namespace(NAMESPACE)
    try:
        cluster.install(NAMESPACE)
        fill(cluster, NAMESPACE)
        text = yaml.safe_dump(document())
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=text)
        with witnessing(cluster, NAMESPACE) as witness:
            chance = random.Random(given.seed)  # noqa: S311
            work = Torture(cluster, NAMESPACE, witness, chance)
            print(torture(work, work.undisturbed("calm"), given.kills))
    except Broken as error:
        print(f"BROKEN (seed {given.seed}): {error}", file=sys.stderr)
        return 1
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    return 0


if __name__ == "__main__":
    sys.exit(main())
