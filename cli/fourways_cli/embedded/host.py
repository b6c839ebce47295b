"""The host itself: plans the manifests, runs what the plans say, tells the status of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fourways_api import ModelDeployment
from fourways_api.cron import next_time
from fourways_operator import plan
from fourways_operator.facts import Facts, Settings
from fourways_operator.plan import Observed
from fourways_operator.status import status_of

from .. import jobs
from . import given, workloads
from .broker import Broker, free_port, streams_of
from .clock import Clock, now
from .control import Refused, answering
from .localised import localised
from .runs import LocalRun
from .servers import RunningServer
from .state import held, lay_out, local_paths

Json = dict[str, Any]
Key = tuple[str, str]

SETTINGS = Settings(runtime_image="fourways-runtime")
KEPT_RUNS = 10


@dataclass(slots=True)
class Managed:
    """A deployment this host serves."""

    deployment: ModelDeployment
    """As it runs here."""

    document: Json
    """As its manifest says, and its status."""

    wanted: tuple[Json, ...]
    cron: workloads.LocalCronJob | None
    builds: list[workloads.LocalJob]
    servers: list[RunningServer]
    runs: list[LocalRun] = field(default_factory=list)
    working: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def url(self) -> str | None:
        """Where its model server answers, as KServe would say; None where it has none."""
        services = (s for s in self.servers if s.server.planned["kind"] == "InferenceService")
        return next((s.server.url for s in services), None)


class Host:
    """Runs what the plan says as processes under one state folder."""

    def __init__(
        self,
        deployments: Sequence[ModelDeployment],
        state: Path,
        *,
        volumes: dict[str, Path],
        secrets: dict[str, Path],
        port: int,
        broker: str | None = None,
        clock: Clock = now,
        on_change: Callable[[Key], None] = lambda _: None,
    ) -> None:
        """Plan everything; nothing runs yet.

        ``broker`` is the address of a NATS server to use instead of one of the host's own.

        Raises:
            SecretNotGiven: a deployment needs a Secret that cannot be made up.

        """
        given.check_databases(deployments, secrets)
        self._state = state
        self._clock = clock
        self._on_change = on_change
        self._tasks: asyncio.TaskGroup | None = None
        self._volumes = given.bundle_claims(deployments, state) | volumes
        self.made_keys = {
            name: folder
            for name, folder in given.signing_keys(deployments, state).items()
            if name not in secrets
        }
        self._secrets = self.made_keys | secrets
        streams = streams_of(deployments)
        self._broker = Broker(state, streams) if streams and broker is None else None
        servers = self._broker.servers if self._broker else broker
        self.managed = {d.key: self._manage(d, servers) for d in deployments}
        spaces = sorted({namespace for namespace, _ in self.managed})
        self.gateways = {
            namespace: RunningServer(
                workloads.gateway(self._plan_gateway(namespace), local_paths(state), port + index),
                state,
                clock,
                partial(self._changed, namespace),
            )
            for index, namespace in enumerate(spaces)
        }

    def _manage(self, deployment: ModelDeployment, nats: str | None) -> Managed:
        here = localised(deployment, nats)
        objects, paths = plan.plan(here, SETTINGS), local_paths(self._state)
        crons = workloads.cron_jobs(objects)
        changed = partial(self._on_change, deployment.key)
        return Managed(
            here,
            deployment.to_json(),
            objects,
            crons[0] if crons else None,
            workloads.jobs(objects, paths),
            [
                RunningServer(server, self._state, self._clock, changed)
                for server in workloads.servers(objects, paths, free_port)
            ],
        )

    def _plan_gateway(self, namespace: str) -> tuple[Json, ...]:
        ours = [m for (space, _), m in self.managed.items() if space == namespace]
        addresses = {m.deployment.metadata.name: m.url for m in ours if m.url}
        owners = [m.deployment.to_json() for m in ours]
        return plan.plan_gateway(namespace, owners, SETTINGS, Observed(addresses))

    async def serve(self) -> None:
        """Run until cancelled. Every process this host started is gone afterwards.

        Raises:
            HostBusy: another host holds the state folder.
            NoBroker: a NATS server is needed, and there is none.

        """
        with held(self._state):
            for folder in self.made_keys.values():
                given.make_signing_key(folder)
            lay_out(self._state, self._volumes, self._secrets)
            # In this order: the group waits for its tasks before broker and socket close.
            async with (
                answering(self._state, self._reply),
                self._with_broker(),
                asyncio.TaskGroup() as tasks,
            ):
                self._tasks = tasks
                for gateway in self.gateways.values():
                    tasks.create_task(gateway.keep())
                for key, managed in self.managed.items():
                    for server in managed.servers:
                        tasks.create_task(server.keep())
                    for build in managed.builds:
                        tasks.create_task(self._run(key, build))
                    if managed.cron:
                        tasks.create_task(self._schedule(key, managed.cron))

    @asynccontextmanager
    async def _with_broker(self) -> AsyncIterator[None]:
        if self._broker is None:
            yield
        else:
            async with self._broker.running():
                yield

    async def start_run(self, key: Key, resume: str | None = None) -> LocalRun:
        """Start a run of a deployment; return it once it is its turn. Raises Refused."""
        cron = self._cron(key)
        begun: asyncio.Future[LocalRun] = asyncio.get_running_loop().create_future()
        self._spawn(self._in_turn(key, jobs.run_job(cron.planned, resume), begun))
        return await begun

    def start_rollback(self, key: Key, run: str) -> LocalRun:
        """Start to have answers come from an earlier run again. Raises Refused."""
        job = self._job(key, jobs.rollback_job(self._cron(key).planned, run))
        started = self._begin(key, job)
        self._spawn(self._see_through(key, started))
        return started

    def _cron(self, key: Key) -> workloads.LocalCronJob:
        managed = self.managed.get(key)
        if managed is None:
            raise Refused(f"no deployment {key[1]} in namespace {key[0]} here")
        if managed.cron is None:
            mode = managed.deployment.spec.choice().mode
            if mode == "batch":
                raise Refused(f"{key[1]} has no runs: `fourways status` says why")
            raise Refused(f"{key[1]} is a {mode} deployment: only batch deployments have runs")
        return managed.cron

    def _job(self, key: Key, planned: Json) -> workloads.LocalJob:
        """Give a Job a name that no other here has."""
        number = int(self._clock().timestamp())
        taken = {run.name for run in self.managed[key].runs}
        prefix = planned["metadata"]["generateName"]
        while f"{prefix}{number}" in taken:
            number += 1
        return workloads.batch_job(planned, f"{prefix}{number}", local_paths(self._state))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()
            raise Refused("the host is starting: try again")
        self._tasks.create_task(work)

    async def _in_turn(
        self, key: Key, planned: Json, begun: asyncio.Future[LocalRun] | None = None
    ) -> None:
        # One run at a time, as the CronJob's concurrencyPolicy says.
        async with self.managed[key].working:
            run = self._begin(key, self._job(key, planned))
            if begun is not None and not begun.done():
                begun.set_result(run)
            await self._see_through(key, run)

    def _begin(self, key: Key, job: workloads.LocalJob) -> LocalRun:
        managed = self.managed[key]
        run = LocalRun(job, self._state, self._clock)
        managed.runs = [run, *managed.runs[: KEPT_RUNS - 1]]
        return run

    async def _see_through(self, key: Key, run: LocalRun) -> None:
        self._on_change(key)
        await run.run()
        self._on_change(key)

    async def _run(self, key: Key, job: workloads.LocalJob) -> None:
        await self._see_through(key, self._begin(key, job))

    async def _schedule(self, key: Key, cron: workloads.LocalCronJob) -> None:
        """Run once at the start, so that there is something to ask, then when the schedule says."""
        while not cron.suspend:
            await self._in_turn(key, jobs.run_job(cron.planned))
            due = next_time(cron.schedule, cron.time_zone, self._clock())
            if due is None:
                return
            await asyncio.sleep(max(0.0, (due - self._clock()).total_seconds()))

    # ------------------------------------------------------------ what is said of it

    def status(self, key: Key) -> Json:
        """Return a deployment's status, decided by the operator's own code."""
        managed = self.managed[key]
        gateway = self.gateways[key[0]]
        jobs = tuple(r.job for r in managed.runs)
        facts = Facts(
            deployment=managed.document,
            wanted=managed.wanted,
            children=(*(s.owner for s in managed.servers), *jobs),
            jobs=jobs,
            pods=(
                *(p for r in managed.runs for p in r.pods),
                *(s.pod for s in managed.servers),
                gateway.pod,
            ),
            gateway=gateway.owner,
            now=self._clock(),
        )
        status = status_of(facts, (), managed.deployment)
        if "address" in status:
            # What a backend in the cluster would ask by the Service's name.
            _, _, path = status["address"].partition(".svc/")
            status["address"] = f"{gateway.server.url}/{path}"
        managed.document = {**managed.document, "status": status}
        return status

    def _changed(self, namespace: str) -> None:
        for key in self.managed:
            if key[0] == namespace:
                self._on_change(key)

    async def _reply(self, question: Json) -> Json:
        key = (question.get("namespace", ""), question.get("name", ""))
        match question["do"]:
            case "run":
                run = await self.start_run(key, question.get("resume"))
                return {"run": run.name, "log": str(run.log)}
            case "rollback":
                run = self.start_rollback(key, question["run"])
                return {"run": run.name, "log": str(run.log)}
        return {
            "gateways": {n: g.server.url for n, g in self.gateways.items()},
            "deployments": [
                {**m.document, "status": self.status(k)} for k, m in self.managed.items()
            ],
        }
