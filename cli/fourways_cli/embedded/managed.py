"""One deployment that the host serves: what is planned for it, its runs, its status."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from fourways_api import DriftStatus, ModelDeployment
from fourways_api.worker_faults import WorkerFaults
from fourways_operator.events import events_of
from fourways_operator.facts import Demand, Facts, rfc3339
from fourways_operator.scaling import may_sleep, wanted_replicas
from fourways_operator.status import status_of

from . import workloads
from .control import RequestRefused
from .runs import LocalRun
from .servers import RunningServer

Json = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

KEPT_RUNS = 10
KEPT_EVENTS = 100


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """What a gateway knows of one deployment."""

    demand: Demand | None = None
    """The requests for it, if it scales to zero."""

    drift: DriftStatus | None = None
    """How records of its devices differ from those of the training."""


@dataclass(slots=True)
class Managed:
    """A deployment that this host serves."""

    deployment: ModelDeployment
    """The deployment as it runs here."""

    document: Json
    """The document from its manifest, with its status."""

    wanted: tuple[Json, ...]
    cron: workloads.LocalCronJob | None
    builds: list[workloads.LocalJob]
    servers: list[RunningServer]
    runs: list[LocalRun] = field(default_factory=list)
    working: asyncio.Lock = field(default_factory=asyncio.Lock)
    report: GatewayReport = field(default_factory=GatewayReport)
    """What its gateway reports of it."""

    events: deque[Json] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    """What happened to it, decided by the operator's own code; the latest last."""

    @property
    def url(self) -> str | None:
        """The address of its model server, as KServe would report it; None if it has none."""
        services = (s for s in self.servers if s.server.planned["kind"] == "InferenceService")
        return next((s.server.url for s in services), None)

    def cron_job(self) -> workloads.LocalCronJob:
        """Return what its runs are made from. Raises RequestRefused: it has no runs."""
        if self.cron is None:
            name, mode = self.deployment.metadata.name, self.deployment.spec.choice().mode
            if mode == "batch":
                raise RequestRefused(f"{name} has no runs: `fourways status` says why")
            raise RequestRefused(f"{name} is a {mode} deployment: only batch deployments have runs")
        return self.cron

    def name_for_run(self, prefix: str, now: datetime) -> str:
        """Return a name for a new run that is unique on this host."""
        number = int(now.timestamp())
        taken = {run.name for run in self.runs}
        while f"{prefix}{number}" in taken:
            number += 1
        return f"{prefix}{number}"

    def add(self, run: LocalRun) -> None:
        """Put a run before the earlier ones; the oldest are forgotten."""
        self.runs = [run, *self.runs[: KEPT_RUNS - 1]]

    def status(self, gateway: RunningServer, now: datetime) -> Json:
        """Return its status, decided by the operator's own code, and keep it in the document."""
        facts = Facts(
            deployment=self.document,
            wanted=self.wanted,
            children=(
                *(s.owner for s in self.servers),
                *(s.scaled for s in self.servers if s.scaled),
                *(r.job for r in self.runs),
            ),
            pods=(
                *(p for r in self.runs for p in r.pods),
                *(p for s in self.servers for p in s.pods),
                gateway.pod,
            ),
            gateway=gateway.owner,
            worker_faults={
                **{s.pod["metadata"]["name"]: s.faults for s in self.servers},
                gateway.pod["metadata"]["name"]: WorkerFaults(drift=self.report.drift),
            },
            demand=self.report.demand,
            now=now,
        )
        status = status_of(facts, (), self.deployment)
        if "address" in status:
            # In a cluster, a backend uses the Service's name instead.
            _, _, path = status["address"].partition(".svc/")
            status["address"] = f"{gateway.server.url}/{path}"
        about = {"object": f"ModelDeployment/{self.deployment.metadata.name}", "count": 1}
        for event in events_of(self.document.get("status"), status):
            self.events.append({"time": rfc3339(now), **asdict(event), **about})
        self.document = {**self.document, "status": status}
        return status

    def inspect(self) -> Json:
        """Return its processes as pods, its events, and its logs by the names of their writers."""
        writers: list[RunningServer | LocalRun] = [*self.servers, *self.runs[:1]]
        return {
            "pods": [
                *(pod for server in self.servers for pod in server.pods),
                *(pod for run in self.runs for pod in run.pods),
            ],
            "events": list(self.events),
            "logs": {
                writer.server.name if isinstance(writer, RunningServer) else writer.name: str(
                    writer.log
                )
                for writer in writers
            },
        }

    def rescale(self, gateway: RunningServer, now: datetime) -> None:
        """Start the model server that requests wait for, or end one that nobody asks."""
        if not may_sleep(self.deployment):
            return
        self.status(gateway, now)
        for server in self.servers:
            if (scaled := server.scaled) is not None:
                count = wanted_replicas(self.deployment, self.document, scaled, self.report.demand)
                if count is not None:
                    server.scale(count)
