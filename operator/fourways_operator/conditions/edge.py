"""The conditions of an edge deployment, from the gateway and the Job that builds its bundles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fourways_api import BundleStatus, DriftStatus, ModelDeployment, Route, RunReport, Status
from fourways_api.reasons import Reason

from ..facts import Facts, Json
from ..kinds import JOB
from ..plan.edge import route
from ..plan.parts import MODE_LABEL
from ..pods import PodFailure
from ..runs import RunFacts, job_of, run_of
from .common import (
    ConditionChain,
    ConditionResult,
    ModeView,
    apply_failed,
    constant,
    gateway_degraded,
    gateway_missing,
    gateway_rolling,
    gateway_unaware,
    idle,
    kind_missing,
    model_resolved,
    model_unusable,
    name_taken,
    nothing_wrong,
    refused,
)
from .drift import drift_conditions, worst


@dataclass(frozen=True)
class EdgeView(ModeView):
    """The build that the spec asks for, and the bundles that are published."""

    build: RunFacts | None

    @classmethod
    def of(cls, facts: Facts, deployment: ModelDeployment, old: Status) -> EdgeView:
        """Return the view of these facts."""
        job = _job(facts)
        if job is None:
            return cls(deployment, facts, old, None)
        name = job["metadata"]["name"]
        pods = [pod for pod in facts.pods if job_of(pod) == name]
        return cls(deployment, facts, old, run_of(job, pods, facts.refused_pods.get(name)))

    @staticmethod
    def still_serves(facts: Facts, old: Status) -> bool:
        """Tell whether bundles are published."""
        return bool(old.bundles)

    def conditions(self) -> Mapping[str, ConditionChain[EdgeView]]:
        """See ModeView."""
        return {
            "Ready": (name_taken, gateway_missing, _nothing_built, _gateway_unaware, _ready),
            "Progressing": (_building, _gateway_rolling, idle),
            "Degraded": (refused, _build_failed, gateway_degraded, nothing_wrong),
            "ModelResolved": (
                _model_unusable,
                model_resolved,
                constant("Unknown", Reason.NotFetchedYet, "the first build will fetch the model"),
            ),
            **drift_conditions(self.deployment),
        }

    @property
    def drift(self) -> DriftStatus | None:
        """That of the gateway whose devices' records differ most; before any answers, the last."""
        names = [pod["metadata"].get("name", "") for pod in self.gateway_pods]
        found = (self.facts.worker_faults.get(name) for name in names)
        known = worst(each.drift for each in found if each)
        unheard = not self.facts.unheard.isdisjoint(names)
        return self.old.drift if known is None and unheard else known

    @property
    def outcome(self) -> str | None:
        """State of the build: Running, Succeeded or Failed."""
        return self.build.status.outcome if self.build else None

    @property
    def published(self) -> RunReport | None:
        """The report of the build that published. The bundles outlive its pod."""
        report = self.build.report if self.build else None
        return report if self.outcome == "Succeeded" else None

    @property
    def bundles(self) -> tuple[BundleStatus, ...]:
        """Bundles that devices get: of this build, or of the last one that succeeded."""
        return self.published.bundles if self.published else self.old.bundles

    @property
    def version(self) -> str | None:
        """Version of the model in the bundles."""
        if self.outcome == "Succeeded":
            return self.deployment.spec.model.version
        return self.old.model.version if self.old.model else None

    @property
    def serves_spec(self) -> bool:
        """Whether the bundles are those that the spec asks for."""
        return self.outcome == "Succeeded"

    @property
    def route(self) -> Route | None:
        """See ModeView."""
        return route(self.deployment, None)

    @property
    def reports(self) -> Iterator[RunReport]:
        """The report of the build."""
        return iter([self.build.report] if self.build and self.build.report else [])

    def status_fields(self) -> dict[str, Any]:
        """Return the fields about bundles."""
        return {"bundles": self.bundles}


def _job(facts: Facts) -> Json | None:
    """Return the Job that the current spec asks for; one of an older spec will be deleted."""
    wanted = next((o["metadata"]["name"] for o in facts.wanted if JOB.of(o)), None)
    builds = [j for j in facts.jobs if _is_build(j) and wanted in (None, j["metadata"]["name"])]
    return max(builds, key=lambda j: str(j["metadata"].get("creationTimestamp")), default=None)


def _is_build(job: Json) -> bool:
    return (job["metadata"].get("labels") or {}).get(MODE_LABEL) == "edge"


def _failure(view: EdgeView) -> PodFailure | None:
    return view.build.failure if view.build else None


def _nothing_built(view: EdgeView) -> ConditionResult | None:
    if view.outcome == "Succeeded" or view.bundles:
        return None
    if stopped := kind_missing(view) or apply_failed(view):
        return stopped
    if view.build is None:
        message = "waiting for the build to be started"
        return ConditionResult("False", Reason.WaitingForBuild, message)
    if view.build.failure:
        message = f"nothing has been built yet: {view.build.failure.message}"
        return ConditionResult("False", view.build.failure.reason, message)
    message = f"build {view.build.status.name}, the first one, is in progress"
    return ConditionResult("False", Reason.BuildInProgress, message)


def _gateway_unaware(view: EdgeView) -> ConditionResult | None:
    """While another build is in progress, the gateway serves the bundles of the last one."""
    if view.outcome != "Succeeded" and any(r and r.publish for r in view.known_routes):
        return None
    return gateway_unaware(view)


def _ready(view: EdgeView) -> ConditionResult | None:
    targets = ", ".join(b.target for b in view.bundles) or "its targets"
    message = f"bundles of version {view.version} are served for {targets}"
    if view.outcome != "Succeeded":
        message += ", from an earlier build"
    return ConditionResult("True", Reason.Published, message)


def _building(view: EdgeView) -> ConditionResult | None:
    if view.build is None or view.outcome != "Running":
        return None
    message = f"build {view.build.status.name} is in progress"
    return ConditionResult("True", Reason.BuildInProgress, message)


def _gateway_rolling(view: EdgeView) -> ConditionResult | None:
    return gateway_rolling(view) if view.outcome == "Succeeded" else None


def _build_failed(view: EdgeView) -> ConditionResult | None:
    build = view.build
    if build is None or build.failure is None:
        return None
    if view.outcome == "Running":
        return ConditionResult("True", build.failure.reason, build.failure.message)
    name = build.status.name
    message = (
        f"build {name} failed: {build.failure.message}; change the spec, or delete Job {name} to "
        "retry it"
    )
    return ConditionResult("True", build.failure.reason, message)


def _model_unusable(view: EdgeView) -> ConditionResult | None:
    return model_unusable(_failure(view))
