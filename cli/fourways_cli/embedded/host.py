"""The host itself: plan the manifests, run the planned workloads, report their status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fourways_api import ModelDeployment
from fourways_api.cron import next_time

from .. import jobs
from . import given, workloads
from .broker import Broker, streams_of
from .clock import Clock, now
from .control import RequestRefused, answering
from .gateway_reports import LocalReports
from .local_plan import LocalPlan
from .managed import GatewayReport, Json, Key, Managed
from .purges import Purges
from .runs import LocalRun
from .servers import RunningServer
from .state import BROKER_SECRET, held, lay_out, local_paths
from .uids import DeploymentUids

logger = logging.getLogger(__name__)


class RestartNeeded(RuntimeError):
    """Deployments changed in a way that needs a restart of the host; the text says how."""


class Host:
    """Runs the planned objects as processes under one state folder."""

    def __init__(
        self,
        deployments: Sequence[ModelDeployment],
        state: Path,
        *,
        volumes: dict[str, Path],
        secrets: dict[str, Path],
        port: int,
        broker: str | None = None,
        keys: Path | None = None,
        grpc_port: int | None = None,
        origins: Sequence[str] = (),
        clock: Clock = now,
        on_change: Callable[[Key], None] = lambda _: None,
    ) -> None:
        """Plan everything; nothing runs yet.

        ``port`` is the port of the first namespace's gateway; each other namespace gets the next
        free port above it. ``grpc_port`` is the same for gRPC; None: gRPC is not served.
        ``broker`` is the address of a NATS server to use instead of the host's own. ``keys`` is the
        folder of the API keys that the gateways ask for; None: every program here may ask.
        ``origins`` are those whose web pages may send requests to the gateways.

        Raises:
            HostLacks: a deployment needs a Secret that the host cannot make.

        """
        given.check_needs(deployments, secrets)
        self._state = state
        self._clock = clock
        self._on_change = on_change
        self._tasks: asyncio.TaskGroup | None = None
        self._work: dict[Key, set[asyncio.Task[None]]] = {}
        self._gateway_tasks: dict[str, asyncio.Task[None]] = {}
        self._volumes = given.bundle_claims(deployments, state) | volumes
        self._secrets = secrets
        self.made_keys = self._keys_to_make(deployments)
        self._streams = streams_of(deployments)
        self._broker = Broker(state, self._streams) if self._streams and broker is None else None
        self._uids = DeploymentUids(state)
        self._reports = LocalReports(keys, self._reported)
        self._purges = Purges(state, self._uids, clock)
        self._own_broker = broker is None
        self._plan = LocalPlan(
            state,
            self._uids,
            clock,
            nats=self._broker.servers if self._broker else broker,
            login=BROKER_SECRET if self._broker else None,
            port=port,
            grpc_port=grpc_port,
            origins=origins,
        )
        self.managed = {d.key: self._manage(d) for d in deployments}
        self.gateways: dict[str, RunningServer] = {}
        """By namespace, from `on_start` on."""

    def _keys_to_make(self, deployments: Iterable[ModelDeployment]) -> dict[str, Path]:
        wanted = given.signing_keys(deployments, self._state)
        return {name: folder for name, folder in wanted.items() if name not in self._secrets}

    def _namespaces(self) -> list[str]:
        return sorted({namespace for namespace, _ in self.managed})

    def _manage(self, deployment: ModelDeployment) -> Managed:
        return self._plan.manage(deployment, self._server_changed)

    def _gateway(self, namespace: str) -> RunningServer:
        ours = [m for (space, _), m in self.managed.items() if space == namespace]
        return self._plan.gateway(namespace, ours, self._reports.callers(), self._changed)

    async def serve(self, on_start: Callable[[], None] = lambda: None) -> None:
        """Run until cancelled. On return, every process that this host started has ended.

        ``on_start`` is called once the state folder is this host's and its gateways have ports.

        Raises:
            HostBusy: another host holds the state folder.
            PortUnavailable: the port of the first gateway is in use.
            NoBroker: a NATS server is needed, and there is none.

        """
        with held(self._state):
            # Responses on a port that another program holds would be taken for the gateway's.
            self._plan.assign_ports(self._namespaces())
            self.gateways = {n: self._gateway(n) for n in self._namespaces()}
            self._lay_out()
            on_start()
            # In this order, so that the group waits for its tasks before broker and socket close.
            async with (
                answering(self._state, self._reply),
                self._with_broker(),
                asyncio.TaskGroup() as tasks,
            ):
                self._tasks = tasks
                for namespace in self.gateways:
                    self._start_gateway(namespace)
                for key in self.managed:
                    self._start(key)
                try:
                    await asyncio.Event().wait()
                finally:
                    self._reports.stop()

    def _lay_out(self) -> None:
        for folder in self.made_keys.values():
            given.make_signing_key(folder)
        login = {BROKER_SECRET: self._broker.secret} if self._broker else {}
        lay_out(self._state, self._volumes, self.made_keys | self._secrets | login)

    @asynccontextmanager
    async def _with_broker(self) -> AsyncIterator[None]:
        if self._broker is None:
            yield
        else:
            async with self._broker.running():
                yield

    # ------------------------------------------------------------ what runs

    def _start(self, key: Key) -> None:
        managed = self.managed[key]
        for server in managed.servers:
            self._spawn(key, server.keep())
        for build in managed.builds:
            self._spawn(key, self._run(key, build))
        if managed.cron:
            self._spawn(key, self._schedule(key, managed.cron))
        self._follow_reports(key)

    def _follow_reports(self, key: Key) -> None:
        managed, gateway = self.managed.get(key), self.gateways.get(key[0])
        self._reports.follow(
            key, managed.deployment if managed else None, gateway.server.url if gateway else None
        )

    def _reported(self, key: Key, report: GatewayReport) -> None:
        if key in self.managed:
            self.managed[key].report = report
            self._server_changed(key)

    def _server_changed(self, key: Key) -> None:
        managed, gateway = self.managed.get(key), self.gateways.get(key[0])
        if managed is not None and gateway is not None:
            managed.rescale(gateway, self._clock())
        self._on_change(key)

    def _start_gateway(self, namespace: str) -> None:
        assert self._tasks is not None  # noqa: S101  (called by serve and while it runs)
        self._gateway_tasks[namespace] = self._tasks.create_task(self.gateways[namespace].keep())

    def _spawn(self, key: Key, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._tasks is None:
            work.close()
            raise RequestRefused("the host is starting: try again")
        task = self._tasks.create_task(work)
        of_key = self._work.setdefault(key, set())
        of_key.add(task)
        task.add_done_callback(of_key.discard)
        return task

    async def replace(self, deployments: Sequence[ModelDeployment]) -> list[Key]:
        """Run these deployments from now on; return the keys of those that changed.

        Unchanged deployments keep running. Changed ones are restarted entirely, so a changed
        batch deployment runs once.

        Raises:
            HostLacks: a deployment needs a Secret that the host cannot make.
            PortUnavailable: no port is free for the gateway of a new namespace.
            RestartNeeded: the NATS streams of the host's own broker changed.

        """
        self._check(deployments)
        wanted = {d.key: d for d in deployments}
        new = [k for k, d in wanted.items() if not self._runs_as(k, d)]
        gone = [key for key in self.managed if key not in wanted]
        for key in (*gone, *new):
            await _cancelled(self._work.pop(key, set()))
        doomed = [k for k in gone if self.managed[k].deployment.spec.deletion_policy == "Delete"]
        ended = {k: [r for r in m.runs if r.ended] for k, m in self.managed.items()}
        self.managed = {
            key: self._manage(d) if key in new else self.managed[key] for key, d in wanted.items()
        }
        for key in new:
            self.managed[key].runs = ended.get(key, [])
        self._volumes = given.bundle_claims(deployments, self._state) | self._volumes
        self.made_keys = self._keys_to_make(deployments)
        self._lay_out()
        await self._replace_gateways()
        for key in new:
            self._start(key)
        for key in gone:
            self._follow_reports(key)
        for key in doomed:
            self._spawn(key, self._purge_logged(key))
        return sorted({*new, *gone})

    def _check(self, deployments: Sequence[ModelDeployment]) -> None:
        given.check_needs(deployments, self._secrets)
        if self._tasks is None:
            raise RestartNeeded("the host was still starting")
        if self._own_broker and streams_of(deployments) != self._streams:
            raise RestartNeeded("the NATS streams changed")
        self._plan.assign_ports(sorted({d.key[0] for d in deployments} - set(self.gateways)))

    def _runs_as(self, key: Key, deployment: ModelDeployment) -> bool:
        managed = self.managed.get(key)
        return managed is not None and managed.deployment == self._plan.here(deployment)

    async def _replace_gateways(self) -> None:
        before, namespaces = self.gateways, self._namespaces()
        made = {namespace: self._gateway(namespace) for namespace in namespaces}
        same = {n for n in namespaces if n in before and _same(before[n], made[n])}
        stopped = [self._gateway_tasks.pop(n) for n in before if n not in same]
        await _cancelled(stopped)
        self.gateways = {n: before[n] if n in same else made[n] for n in namespaces}
        for namespace in namespaces:
            if namespace not in same:
                self._start_gateway(namespace)

    async def start_run(self, key: Key, resume: str | None = None) -> LocalRun:
        """Start a run of a deployment; return it once it begins. Raises RequestRefused."""
        cron = self._cron(key)
        begun: asyncio.Future[LocalRun] = asyncio.get_running_loop().create_future()

        def refuse(task: asyncio.Task[None]) -> None:
            if not begun.done():
                begun.set_exception(RequestRefused(f"{key[1]} changed meanwhile: try again"))

        task = self._spawn(key, self._in_turn(key, jobs.run_job(cron.planned, resume), begun))
        # In a callback, because a task that is cancelled before it begins runs none of its code.
        task.add_done_callback(refuse)
        return await begun

    def start_rollback(self, key: Key, run: str) -> LocalRun:
        """Start a Job that rolls back to an earlier run. Raises RequestRefused."""
        job = self._job(key, jobs.rollback_job(self._cron(key).planned, run))
        started = self._begin(key, job)
        self._spawn(key, self._see_through(key, started))
        return started

    async def purge(self, key: Key, uids: Sequence[str]) -> list[Json]:
        """Remove the data of these uids of a name; return it. Without uids, list what there is.

        Raises:
            RequestRefused: a uid is that of a deployment that runs here, or the store failed.

        """
        if key in self.managed and self.data_uid(key) in uids:
            raise RequestRefused(f"{key[1]} runs here: its data cannot be removed")
        return await self._purges.run(key, uids)

    def data_uid(self, key: Key) -> str | None:
        """Return the uid to which the data of a deployment that runs here belongs."""
        managed = self.managed.get(key)
        return managed.deployment.metadata.data_uid if managed else None

    async def _purge_logged(self, key: Key) -> None:
        try:
            await self.purge(key, [self._uids.of(key)])
        except RequestRefused as error:
            logger.warning("%s", error)

    def _cron(self, key: Key) -> workloads.LocalCronJob:
        managed = self.managed.get(key)
        if managed is None:
            raise RequestRefused(f"no ModelDeployment {key[1]} in namespace {key[0]}")
        return managed.cron_job()

    def _job(self, key: Key, planned: Json) -> workloads.LocalJob:
        prefix = planned["metadata"]["generateName"]
        name = self.managed[key].name_for_run(prefix, self._clock())
        return workloads.batch_job(planned, name, local_paths(self._state))

    async def _in_turn(
        self, key: Key, planned: Json, begun: asyncio.Future[LocalRun] | None = None
    ) -> None:
        # One run at a time, as in the CronJob's concurrencyPolicy.
        async with self.managed[key].working:
            run = self._begin(key, self._job(key, planned))
            if begun is not None and not begun.done():
                begun.set_result(run)
            await self._see_through(key, run)

    def _begin(self, key: Key, job: workloads.LocalJob) -> LocalRun:
        run = LocalRun(job, self._state, self._clock)
        self.managed[key].add(run)
        return run

    async def _see_through(self, key: Key, run: LocalRun) -> None:
        self._on_change(key)
        await run.run()
        self._on_change(key)

    async def _run(self, key: Key, job: workloads.LocalJob) -> None:
        await self._see_through(key, self._begin(key, job))

    async def _schedule(self, key: Key, cron: workloads.LocalCronJob) -> None:
        """Run once at the start, to have predictions at once, then on schedule."""
        while not cron.suspend:
            await self._in_turn(key, jobs.run_job(cron.planned))
            due = next_time(cron.schedule, cron.time_zone, self._clock())
            if due is None:
                return
            await asyncio.sleep(max(0.0, (due - self._clock()).total_seconds()))

    # ------------------------------------------------------------ what it reports

    def status(self, key: Key) -> Json:
        """Return a deployment's status, decided by the operator's own code."""
        return self.managed[key].status(self.gateways[key[0]], self._clock())

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
            case "purge":
                return {"stored": await self.purge(key, question["uids"])}
            case "inspect":
                if key not in self.managed:
                    raise RequestRefused(f"no ModelDeployment {key[1]} in namespace {key[0]}")
                return self.managed[key].inspect()
        return {
            "gateways": {
                namespace: {
                    "url": gateway.server.url,
                    "listening": gateway.listening,
                    "log": str(gateway.log),
                }
                for namespace, gateway in self.gateways.items()
            },
            "uids": {"/".join(k): self.data_uid(k) for k in self.managed},
            "deployments": [
                {**m.document, "status": self.status(k)} for k, m in self.managed.items()
            ],
        }


def _same(one: RunningServer, other: RunningServer) -> bool:
    return one.server.config == other.server.config


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
