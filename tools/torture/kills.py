"""Kill servers, workers and databases, and rotate Secrets, under load; check each answer.

``python -m tools.torture.kills [--short] [--times N] [--rate PER_SECOND]
[--only NAME]…``

A batch, a real-time and a streaming deployment run under ``fourways up``, and another one that
reads from Kafka if its login is rotated; requests for all of them go through the gateway all the
while. Store and features are in PostgreSQL. For each disturbance it prints, and judges:

* wrong: answers with another value than the right one (must be 0);
* back: seconds from the disturbance to the last request that failed because of it (at most 5);
* cause: the reason that a condition of the deployment gave within 10 seconds. Required where
  requests failed for longer than two seconds.

A rotation refuses the old login at once and cuts its sessions. Without requests,
``tools.torture.stream`` and ``tools.torture.batch`` disturb the store in many more ways.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .kills_rig import BATCH, KEYS, REALTIME, STREAM, TAKEN, KillsRig

BACK_SECONDS, CAUSE_SECONDS, UNSAID_SECONDS = 5.0, 10.0, 2.0
THREADS = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request."""

    at: float
    deployment: str
    status: int
    """HTTP status; 0 if there was no answer."""

    right: bool


class Load:
    """Requests at a rate, from several threads, until stopped."""

    def __init__(self, rig: KillsRig, rate: float) -> None:
        self._rig = rig
        self._pause = THREADS / rate
        self._stop = threading.Event()
        self.seen: list[Outcome] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the requests in progress."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        turn, names = number, self._rig.deployments
        due = time.monotonic()
        while not self._stop.is_set():
            due = max(due + self._pause, time.monotonic() - 1.0)
            self._stop.wait(max(0.0, due - time.monotonic()))
            deployment = names[(turn + turn // THREADS) % len(names)]
            at_turn, turn = turn, turn + THREADS
            at = time.monotonic()
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self._rig.port, timeout=5)
            try:
                status, right = _ask(connection, self._rig.key, deployment, at_turn)
            except (OSError, http.client.HTTPException):
                connection.close()
                connection, status, right = None, 0, True
            self.seen.append(Outcome(at, deployment, status, right))


def _ask(
    connection: http.client.HTTPConnection, key: str, deployment: str, turn: int
) -> tuple[int, bool]:
    """Ask for the answer to a key; return the status, and whether the answer is right."""
    n = turn * 7 % KEYS
    tensors = [{"name": "id", "datatype": "BYTES", "shape": [1], "data": [f"k{n}"]}]
    if deployment in (STREAM, TAKEN):
        n = turn  # an input that no stored answer is for
        tensors.append({"name": "x", "datatype": "FP32", "shape": [1], "data": [n]})
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Prefer": "wait=2",
    }
    body = json.dumps({"inputs": tensors})
    connection.request("POST", f"/v2/models/{deployment}/infer", body, headers)
    answer = connection.getresponse()
    raw = answer.read()
    if answer.status != 200:
        return answer.status, True
    outputs = {output["name"]: output["data"] for output in json.loads(raw)["outputs"]}
    return 200, outputs.get("y") == [n]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What is done, and the deployments whose requests may fail."""

    name: str
    act: Callable[[KillsRig], None]
    hits: tuple[str, ...]
    status_of: str


STORED = (BATCH, STREAM, TAKEN)
DISTURBANCES = (
    Disturbance("gateway", lambda rig: rig.kill("gateway"), (REALTIME, *STORED), REALTIME),
    Disturbance("model server", lambda rig: rig.kill(REALTIME), (REALTIME,), REALTIME),
    Disturbance("stream worker", lambda rig: rig.kill(STREAM), (STREAM,), STREAM),
    Disturbance("PostgreSQL", lambda rig: rig.crash_postgres(), (REALTIME, *STORED), STREAM),
    Disturbance("API key", lambda rig: rig.rotate_key(), (REALTIME, *STORED), REALTIME),
    Disturbance("feature Secret", lambda rig: rig.features.rotate(), (REALTIME,), REALTIME),
    Disturbance("store Secret", lambda rig: rig.store.rotate(), STORED, STREAM),
    Disturbance("NATS Secret", lambda rig: rig.rotate_nats(), (STREAM,), STREAM),
    Disturbance("Kafka Secret", lambda rig: rig.kafka.rotate(), (TAKEN,), TAKEN),
)


def disturb(rig: KillsRig, load: Load, what: Disturbance) -> list[str]:
    """Do it, print what came of it, and return what is wrong."""
    first, begun = len(load.seen), time.monotonic()
    with ThreadPoolExecutor(1) as acting:
        # A cause may be gone again when the disturbance is over.
        done = acting.submit(what.act, rig)
        cause, deadline = "", begun + CAUSE_SECONDS
        while time.monotonic() < deadline:
            cause = cause or _cause(rig, what.status_of)
            time.sleep(0.1)
        done.result()
    seen = load.seen[first:]
    failed = [one for one in seen if one.status not in (200, 202)]
    moments = [one.at - begun for one in failed if one.deployment in what.hits]
    back = max(moments, default=0.0)
    lasted = back - min(moments, default=0.0)
    wrong = sum(not one.right for one in seen)
    beside = sum(one.deployment not in what.hits for one in failed)
    statuses = sorted({one.status for one in failed})
    print(
        f"{what.name}: {len(seen)} requests, {len(failed)} failed {statuses or ''}, "
        f"{wrong} wrong, back after {back:.1f} s, cause: {cause or 'not said'}",
        flush=True,
    )
    faults = []
    if not seen:
        faults.append("no requests were sent")
    if wrong:
        faults.append(f"{wrong} wrong answers")
    if back > BACK_SECONDS:
        faults.append(f"back only after {back:.1f} s")
    if lasted > UNSAID_SECONDS and not cause:
        faults.append("no condition said why")
    if beside:
        faults.append(f"{beside} requests of other deployments failed")
    return [f"{what.name}: {fault}" for fault in faults]


def _cause(rig: KillsRig, name: str) -> str:
    """Return the reason of a condition that says that something is wrong, if there is one."""
    for kind, bad in (("Degraded", "True"), ("Ready", "False")):
        found = rig.conditions(name).get(kind, {})
        if found.get("status") == bad:
            return f"{found['reason']} ({found['message'][:80]})"
    return ""


def torture(folder: Path, times: int, rate: float, only: Sequence[str] = ()) -> list[str]:
    """Make each disturbance some times under load; return what is wrong. Raises NotServing.

    ``only``: the names of the disturbances to make; empty: all.
    """
    chosen = [what for what in DISTURBANCES if not only or what.name in only]
    rig = KillsRig(folder, any(what.status_of == TAKEN for what in chosen))
    try:
        load = Load(rig, rate)
        try:
            time.sleep(3.0)
            faults = [
                fault for _ in range(times) for what in chosen for fault in disturb(rig, load, what)
            ]
        finally:
            load.stop()
        answered = sum(one.status == 200 for one in load.seen)
        print(f"{len(load.seen)} requests, {answered} answered")
        return faults
    finally:
        rig.close()


def main(arguments: Sequence[str] = ()) -> int:
    """Parse the options, and disturb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="once each, 60 requests per second")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--rate", type=float, default=150.0, help="requests per second")
    names = [what.name for what in DISTURBANCES]
    parser.add_argument("--only", action="append", default=[], choices=names, metavar="NAME")
    options = parser.parse_args(arguments)
    times, rate = (1, 60.0) if options.short else (options.times, options.rate)
    with tempfile.TemporaryDirectory(prefix="fourways-kills-") as folder:
        faults = torture(Path(folder), times, rate, options.only)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
