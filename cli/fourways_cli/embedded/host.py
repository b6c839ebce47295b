"""The host itself: plans the manifests, runs the gateways and the schedules, tells their status."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from fourways_api import ModelDeployment
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_operator import plan
from fourways_operator.facts import Facts, Settings
from fourways_operator.status import next_run, status_of

from . import workloads
from .control import control_path
from .processes import worker
from .runs import LocalRun, local_paths, now

Json = dict[str, Any]
Key = tuple[str, str]

SETTINGS = Settings(runtime_image="fourways-runtime")
RESTART_SECONDS = 1.0
KEPT_RUNS = 10


class HostBusy(RuntimeError):
    """Another host holds the state folder."""


@dataclass(slots=True)
class Managed:
    """A deployment this host serves."""

    deployment: ModelDeployment
    document: Json
    cron: workloads.LocalCronJob | None
    runs: list[LocalRun] = field(default_factory=list)
    working: asyncio.Lock = field(default_factory=asyncio.Lock)


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
        clock: Callable[[], datetime] = now,
        on_change: Callable[[Key], None] = lambda _: None,
    ) -> None:
        self._state = state
        self._clock = clock
        self._on_change = on_change
        self._volumes = volumes
        self._secrets = secrets
        paths = local_paths(state)
        self.managed = {d.key: self._manage(d) for d in deployments}
        spaces = sorted({namespace for namespace, _ in self.managed})
        self.gateways = {
            namespace: workloads.gateway(
                plan.plan_gateway(namespace, self._owners(namespace), SETTINGS), paths, port + index
            )
            for index, namespace in enumerate(spaces)
        }
        self._up: set[str] = set()

    def _manage(self, deployment: ModelDeployment) -> Managed:
        crons = workloads.cron_jobs(plan.plan(deployment, SETTINGS), local_paths(self._state))
        return Managed(deployment, deployment.to_json(), crons[0] if crons else None)

    def _owners(self, namespace: str) -> list[Json]:
        return [m.document for (space, _), m in self.managed.items() if space == namespace]

    async def serve(self) -> None:
        """Run until cancelled. Every process this host started is gone afterwards."""
        with self._hold_state():
            self._lay_out()
            # In this order: the group waits for its tasks before the socket closes.
            async with self._control(), asyncio.TaskGroup() as tasks:
                for gateway in self.gateways.values():
                    tasks.create_task(self._keep_gateway(gateway))
                for key, managed in self.managed.items():
                    if managed.cron:
                        tasks.create_task(self._schedule(key, managed.cron))

    async def run_now(self, key: Key) -> LocalRun:
        """Start a run of a deployment and see it to its end.

        Raises:
            KeyError: no such batch deployment here.

        """
        managed = self.managed[key]
        if managed.cron is None:
            raise KeyError(key)
        # One run at a time, as the CronJob's concurrencyPolicy says.
        async with managed.working:
            name = f"{managed.cron.name}-{int(self._clock().timestamp())}"
            run = LocalRun(managed.cron, name, self._state, self._clock)
            managed.runs = [run, *managed.runs[: KEPT_RUNS - 1]]
            self._on_change(key)
            await run.run()
            self._on_change(key)
        return run

    def status(self, key: Key) -> Json:
        """Return a deployment's status, decided by the operator's own code."""
        managed = self.managed[key]
        gateway = {"status": {"availableReplicas": 1 if key[0] in self._up else 0}}
        facts = Facts(
            deployment=managed.document,
            jobs=tuple(r.job for r in managed.runs),
            pods=tuple(p for r in managed.runs for p in r.pods),
            gateway=gateway,
            now=self._clock(),
        )
        status = status_of(facts, (), managed.deployment)
        status["address"] = f"{self.gateways[key[0]].url}/v2/models/{key[1]}/infer"
        managed.document = {**managed.document, "status": status}
        return status

    # ------------------------------------------------------------ what runs

    async def _schedule(self, key: Key, cron: workloads.LocalCronJob) -> None:
        """Run once at the start, so that there is something to ask, then when the schedule says."""
        while not cron.suspend:
            await self.run_now(key)
            due = datetime.fromisoformat(next_run(cron.schedule, cron.time_zone, self._clock()))
            await asyncio.sleep(max(0.0, (due - self._clock()).total_seconds()))

    async def _keep_gateway(self, gateway: workloads.LocalGateway) -> None:
        environment = {CONFIG_VARIABLE: workloads.document(gateway.config)}
        log = self._state / "logs" / f"gateway-{gateway.namespace}.log"
        while True:
            async with worker(gateway.args, environment, log) as process:
                ended = asyncio.create_task(process.wait())
                await self._await_answer(gateway, ended)
                await asyncio.shield(ended)
            self._up.discard(gateway.namespace)
            self._changed(gateway.namespace)
            await asyncio.sleep(RESTART_SECONDS)

    async def _await_answer(
        self, gateway: workloads.LocalGateway, ended: asyncio.Task[int]
    ) -> None:
        while not ended.done():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(gateway.config.host, gateway.config.port)
                writer.close()
                self._up.add(gateway.namespace)
                self._changed(gateway.namespace)
                return
            await asyncio.sleep(0.05)

    def _changed(self, namespace: str) -> None:
        for key in self.managed:
            if key[0] == namespace:
                self._on_change(key)

    # ------------------------------------------------------------ state folder

    @contextlib.contextmanager
    def _hold_state(self) -> Any:
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                message = (
                    f"another `fourways up` holds {self._state}: stop it, or give another --state"
                )
                raise HostBusy(message) from None
            yield

    def _lay_out(self) -> None:
        for folder in ("logs", "runs", "store", "cache", "volumes", "secrets"):
            (self._state / folder).mkdir(exist_ok=True, mode=0o700)
        (self._state / "store" / "uri").write_text(f"sqlite:///{self._state / 'store.db'}")
        for kind, places in (("volumes", self._volumes), ("secrets", self._secrets)):
            for name, target in places.items():
                link = self._state / kind / name
                link.unlink(missing_ok=True)
                link.symlink_to(target.resolve(), target_is_directory=True)

    @asynccontextmanager
    async def _control(self) -> AsyncIterator[None]:
        """Answer `fourways run|status|predict` on a socket in the state folder."""
        path = control_path(self._state)
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, path)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = orjson.loads(await reader.readline())
            answer = await self._reply(question)
        except (KeyError, ValueError) as error:
            answer = {"error": f"no such batch deployment here: {error}"}
        writer.write(orjson.dumps(answer) + b"\n")
        await writer.drain()
        writer.close()

    async def _reply(self, question: Json) -> Json:
        if question["do"] == "run":
            run = await self.run_now((question["namespace"], question["name"]))
            return {"run": run.name, "log": str(run.log)}
        return {
            "gateways": {n: g.url for n, g in self.gateways.items()},
            "deployments": [
                {**m.document, "status": self.status(k)} for k, m in self.managed.items()
            ],
        }
