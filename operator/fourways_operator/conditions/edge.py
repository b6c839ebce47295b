"""What is said of an edge deployment: by the Job that builds its bundles, and the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fourways_api import BundleStatus, ModelDeployment, RunReport, Status

from ..facts import Facts, Json
from ..plan import JOB, MODE_LABEL
from ..runs import RunFacts, job_of, run_of
from .common import (
    ConditionResult,
    ModeView,
    apply_failed,
    constant,
    gateway_degraded,
    gateway_missing,
    gateway_rolling,
    gateway_unaware,
    kind_missing,
    model_refused,
    model_resolved,
    name_taken,
    nothing_wrong,
    refused,
)


@dataclass(frozen=True)
class EdgeView(ModeView):
    """The build that the spec asks for, and what is published."""

    build: RunFacts | None

    @classmethod
    def of(cls, facts: Facts, deployment: ModelDeployment, old: Status) -> EdgeView:
        """Return the facts, digested."""
        job = _job(facts)
        if job is None:
            return cls(deployment, facts, old, None)
        name = job["metadata"]["name"]
        return cls(
            deployment, facts, old, run_of(job, [p for p in facts.pods if job_of(p) == name])
        )

    @property
    def outcome(self) -> str | None:
        """How the build goes."""
        return self.build.status.outcome if self.build else None

    @property
    def published(self) -> RunReport | None:
        """What the build published. Its pod may be cleaned up; what is published stays."""
        report = self.build.report if self.build else None
        return report if self.outcome == "Succeeded" else None

    @property
    def bundles(self) -> tuple[BundleStatus, ...]:
        """What devices are served: of this build, or else of the last one that succeeded."""
        return self.published.bundles if self.published else self.old.bundles

    @property
    def version(self) -> str | None:
        """Version of the model in the bundles."""
        if self.outcome == "Succeeded":
            return self.deployment.spec.model.version
        return self.old.model.version if self.old.model else None

    @property
    def reports(self) -> Iterator[RunReport]:
        """What the build said."""
        return iter([self.build.report] if self.build and self.build.report else [])

    def status_fields(self) -> dict[str, Any]:
        """Return the fields about bundles."""
        return {"bundles": self.bundles}


def _job(facts: Facts) -> Json | None:
    """Return the Job that the spec asks for now; one of an older spec is about to go."""
    wanted = next((o["metadata"]["name"] for o in facts.wanted if JOB.of(o)), None)
    builds = [j for j in facts.jobs if _is_build(j) and wanted in (None, j["metadata"]["name"])]
    return max(builds, key=lambda j: str(j["metadata"].get("creationTimestamp")), default=None)


def _is_build(job: Json) -> bool:
    return (job["metadata"].get("labels") or {}).get(MODE_LABEL) == "edge"


def _nothing_built(view: EdgeView) -> ConditionResult | None:
    if view.outcome == "Succeeded" or view.bundles:
        return None
    if stopped := kind_missing(view) or apply_failed(view):
        return stopped
    if view.build is None:
        return ConditionResult("False", "WaitingForBuild", "waits for its build to be started")
    if view.build.failure:
        message = f"nothing was built yet: {view.build.failure.message}"
        return ConditionResult("False", view.build.failure.reason, message)
    name = view.build.status.name
    return ConditionResult("False", "BuildInProgress", f"build {name} is at work; it is the first")


def _gateway_unaware(view: EdgeView) -> ConditionResult | None:
    """While another build is at work the gateway serves what the last one published."""
    if view.outcome != "Succeeded" and any(r and r.publish for r in view.known_routes):
        return None
    return gateway_unaware(view)


def _ready(view: EdgeView) -> ConditionResult | None:
    targets = ", ".join(b.target for b in view.bundles) or "its targets"
    message = f"bundles of version {view.version} are served for {targets}"
    if view.outcome != "Succeeded":
        message += ", by an earlier build"
    return ConditionResult("True", "Published", message)


def _building(view: EdgeView) -> ConditionResult | None:
    if view.build is None or view.outcome != "Running":
        return None
    return ConditionResult("True", "BuildInProgress", f"build {view.build.status.name} is at work")


def _gateway_rolling(view: EdgeView) -> ConditionResult | None:
    return gateway_rolling(view) if view.outcome == "Succeeded" else None


def _build_failing(view: EdgeView) -> ConditionResult | None:
    build = view.build
    if build is None or build.failure is None:
        return None
    if view.outcome == "Running":
        return ConditionResult("True", build.failure.reason, build.failure.message)
    name = build.status.name
    message = (
        f"build {name} failed: {build.failure.message}; change the spec, or delete Job {name} to "
        "have it tried again"
    )
    return ConditionResult("True", build.failure.reason, message)


def _model_failed(view: EdgeView) -> ConditionResult | None:
    return model_refused(view.build.failure if view.build else None)


EdgeView.conditions = {
    "Ready": (name_taken, gateway_missing, _nothing_built, _gateway_unaware, _ready),
    "Progressing": (
        _building,
        _gateway_rolling,
        constant("False", "Idle", "nothing is under way"),
    ),
    "Degraded": (refused, _build_failing, gateway_degraded, nothing_wrong),
    "ModelResolved": (
        _model_failed,
        model_resolved,
        constant("Unknown", "NotFetchedYet", "the first build will fetch the model"),
    ),
}
