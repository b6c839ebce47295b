"""Runs the operator against the fake cluster until nothing moves any more, restarting the dead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from fourways_operator.demand import AskDemand
from fourways_operator.errors import GatewaySilent
from fourways_operator.event_filter import EventFilter
from fourways_operator.facts import Json, OperatorSettings
from fourways_operator.gateway_answers import AskReady
from fourways_operator.main import Operator
from fourways_operator.progress import Ask
from fourways_operator.worker_faults import AskWorker
from tests.kit.waiting import turns

from .fake_cluster import FakeCluster
from .faults import Killed

SETTINGS = OperatorSettings(runtime_image="registry.example/fourways:1")
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NAMESPACE = "shop"
ROUNDS = 5_000
RESYNC = 1e6

Step = Callable[[FakeCluster], None]


async def _silent(namespace: str) -> bytes:
    raise GatewaySilent("nobody is there")


class Rig:
    """One cluster and the operator that looks after it, which may die and come again."""

    def __init__(
        self,
        cluster: FakeCluster,
        ask: Ask = _silent,
        *,
        settings: OperatorSettings = SETTINGS,
        ask_worker: AskWorker | None = None,
        ask_ready: AskReady | None = None,
        ask_demand: AskDemand | None = None,
        now: Callable[[], datetime] = lambda: NOW,
    ) -> None:
        self.cluster = cluster
        self._ask = ask
        self._ask_worker = ask_worker
        self._ask_ready = ask_ready
        self._ask_demand = ask_demand
        self._settings = settings
        self._now = now
        self.deaths = 0
        self._start()

    def _start(self) -> None:
        self.operator = Operator(
            self.cluster,
            self._settings,
            now=self._now,
            resync_interval=RESYNC,
            workers=1,
            random=lambda: 0.0,
            sleep=_no_time,
            ask=self._ask,
            ask_worker=self._ask_worker,
            ask_ready=self._ask_ready,
            ask_demand=self._ask_demand,
        )
        queue, event_filter = self.operator.queue, EventFilter()
        self._listener = lambda obj, gone: [
            queue.add(key) for key in event_filter.keys_of(obj, gone=gone)
        ]
        self.cluster.listeners.append(self._listener)
        self._task = asyncio.create_task(self.operator.run())

    async def settle(self) -> None:
        """Wait until the operator has nothing to do; start it again where it died."""
        quiet = 0
        for _ in range(ROUNDS):
            await turns()
            if self._task.done():
                self._bury()
                self._start()
            queue = self.operator.queue
            busy = self.operator.relist_age() is None or not queue.idle or queue.delayed
            quiet = 0 if busy else quiet + 1
            if quiet == 3:
                return
        raise AssertionError(f"does not come to rest; last writes: {self.cluster.writes[-20:]}")

    def _bury(self) -> None:
        self.cluster.listeners.remove(self._listener)
        fault = self._task.exception()
        assert isinstance(fault, BaseExceptionGroup), fault
        assert fault.split(Killed)[1] is None, fault
        self.deaths += 1
        self.cluster.faults.kill_before = self.cluster.faults.kill_after = None

    async def resync(self) -> None:
        """Let the periodic relist come."""
        await self.operator.relist()
        await self.settle()

    async def stop(self) -> None:
        """Take the operator away."""
        self.cluster.listeners.remove(self._listener)
        self.operator.stop()
        await asyncio.wait([self._task])

    async def restart(self) -> None:
        """Stop the operator and start it anew."""
        await self.stop()
        self._start()
        await self.settle()


async def play(cluster: FakeCluster, steps: Sequence[Step]) -> FakeCluster:
    """Take the steps one after another, each settled, then let a relist come and go."""
    rig = Rig(cluster)
    await rig.settle()
    for step in steps:
        step(cluster)
        await rig.settle()
    # Whatever befell it is over now.
    cluster.faults.stale_reads, cluster.faults.read_answers = frozenset(), {}
    await rig.resync()
    await rig.stop()
    return cluster


async def second_look(cluster: FakeCluster) -> list[str]:
    """Return what a settled cluster is written to by a look at everything and by a restart."""
    rig = Rig(cluster)
    await rig.settle()
    cluster.writes.clear()
    await rig.resync()
    await rig.restart()
    await rig.stop()
    return cluster.writes


def state_of(cluster: FakeCluster) -> dict[str, Json]:
    """Return everything in the cluster but what names a moment: uids, versions, counters."""
    objects = cluster.objects.items()
    names = {obj["metadata"]["uid"]: f"<{kind} {name}>" for (kind, _, name), obj in objects}
    state = {}
    for (kind, namespace, name), obj in objects:
        text = json.dumps(_without_moments(obj), sort_keys=True)
        for uid, owner in names.items():
            text = text.replace(f'"{uid}"', f'"{owner}"').replace(f'\\"{uid}\\"', f"{owner}")
        assert '"uid-' not in text, f"{kind} {name} names an owner that is not there: {text}"
        state[f"{namespace}/{kind}/{name}"] = json.loads(text)
    return state


def _without_moments(obj: Json) -> Json:
    transient: dict[str, Any] = dict.fromkeys(("uid", "resourceVersion"))
    if obj["kind"] != "ModelDeployment":
        transient["generation"] = None
    meta = {k: v for k, v in obj["metadata"].items() if k not in transient}
    return {**obj, "metadata": meta}


async def _no_time(seconds: float) -> None:
    """Take no time; the periodic relist comes when a test says so."""
    if seconds >= RESYNC:
        await asyncio.Event().wait()
    await turns()
