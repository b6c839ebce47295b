"""What is said of a deployment, as tables. Pure.

A condition is decided by an ordered list of checks, one line each; the first that has something
to say decides. ``CONDITIONS`` is the table of contents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fourways_api import ModelDeployment, RunStatus

from .facts import Facts, Json
from .plan import AVAILABLE_MODES
from .runs import RunFacts, Trouble, trouble_of

MODEL_REASONS = frozenset(
    {
        "DigestMismatch",
        "ModelNotLoadable",
        "ContractMismatch",
        "GoldenMismatch",
        "FetchRefused",
        "FetchFailed",
    }
)
"""Reasons of a failed run that speak of the model."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition before it has a time."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """The facts, digested: what the checks look at."""

    deployment: ModelDeployment
    facts: Facts
    mode: str
    runs: list[RunFacts]
    last_published: RunStatus | None
    digest: str | None

    @property
    def latest(self) -> RunFacts | None:
        """The latest run."""
        return self.runs[0] if self.runs else None

    @property
    def finished(self) -> RunFacts | None:
        """The latest run that ended."""
        return next((r for r in self.runs if r.status.outcome != "Running"), None)


Check = Callable[[View], Verdict | None]


def _mode_not_available(view: View) -> Verdict | None:
    if view.mode in AVAILABLE_MODES:
        return None
    modes = ", ".join(sorted(AVAILABLE_MODES))
    message = f"mode {view.mode} is not available in this version of Fourways; available: {modes}"
    return Verdict("False", "ModeNotAvailable", message)


def _name_taken(view: View) -> Verdict | None:
    if not view.facts.conflicts:
        return None
    names = ", ".join(view.facts.conflicts)
    message = (
        f"{names} exists and is somebody else's: rename or delete it, or rename this deployment"
    )
    return Verdict("False", "NameTaken", message)


def _apply_failed(view: View) -> Verdict | None:
    if not view.facts.faults:
        return None
    return Verdict("False", "ApplyFailed", "; ".join(view.facts.faults))


def _gateway_missing(view: View) -> Verdict | None:
    if _available(view.facts.gateway):
        return None
    trouble = _gateway_trouble(view)
    message = "waits for the gateway" + (f": {trouble.message}" if trouble else "")
    return Verdict("False", trouble.reason if trouble else "WaitingForGateway", message)


def _nothing_published(view: View) -> Verdict | None:
    if view.last_published is not None:
        return None
    if refused := _apply_failed(view):
        return refused
    if view.latest and view.latest.trouble:
        return Verdict(
            "False",
            view.latest.trouble.reason,
            f"no run was published yet: {view.latest.trouble.message}",
        )
    if view.latest and view.latest.status.outcome == "Running":
        return Verdict("False", "FirstRunInProgress", f"run {view.latest.status.name} is at work")
    message = f"no run yet; start one now: fourways run {view.deployment.metadata.name}"
    return Verdict("False", "WaitingForFirstRun", message)


def _ready(view: View) -> Verdict | None:
    run = view.last_published
    assert run is not None  # noqa: S101  (checked before)
    return Verdict("True", "Published", f"answers from run {run.name} ({run.rows} rows)")


def _run_in_progress(view: View) -> Verdict | None:
    if view.latest and view.latest.status.outcome == "Running":
        return Verdict("True", "RunInProgress", f"run {view.latest.status.name} is at work")
    return None


def _running_badly(view: View) -> Verdict | None:
    if view.latest and view.latest.status.outcome == "Running" and view.latest.trouble:
        return Verdict("True", view.latest.trouble.reason, view.latest.trouble.message)
    return None


def _last_run_failed(view: View) -> Verdict | None:
    run = view.finished
    if run is None or run.status.outcome != "Failed" or run.trouble is None:
        return None
    return Verdict(
        "True", run.trouble.reason, f"run {run.status.name} failed: {run.trouble.message}"
    )


def _refused(view: View) -> Verdict | None:
    verdict = _apply_failed(view)
    return replace(verdict, status="True") if verdict else None


def _gateway_degraded(view: View) -> Verdict | None:
    trouble = _gateway_trouble(view)
    return Verdict("True", trouble.reason, f"gateway: {trouble.message}") if trouble else None


def _model_failed(view: View) -> Verdict | None:
    run = view.latest
    if run is None or run.trouble is None or run.trouble.reason not in MODEL_REASONS:
        return None
    return Verdict("False", run.trouble.reason, run.trouble.message)


def _model_resolved(view: View) -> Verdict | None:
    if view.digest is None:
        return None
    source = "spec" if view.deployment.spec.model.digest else "first download"
    return Verdict("True", "Resolved", f"{view.digest} by {source}")


def _constant(status: str, reason: str, message: str) -> Check:
    return lambda _: Verdict(status, reason, message)


CONDITIONS: dict[str, tuple[Check, ...]] = {
    "Ready": (_mode_not_available, _name_taken, _gateway_missing, _nothing_published, _ready),
    "Progressing": (_run_in_progress, _constant("False", "Idle", "nothing is under way")),
    "Degraded": (
        _refused,
        _running_badly,
        _last_run_failed,
        _gateway_degraded,
        _constant("False", "AsExpected", "nothing is wrong"),
    ),
    "ModelResolved": (
        _model_failed,
        _model_resolved,
        _constant("Unknown", "NotFetchedYet", "the first run will fetch the model"),
    ),
}
"""A condition is what its first check with something to say says of it."""


def verdicts_of(view: View) -> dict[str, Verdict]:
    """Return what each condition's checks say."""
    return {
        kind: next(v for v in (check(view) for check in checks) if v is not None)
        for kind, checks in CONDITIONS.items()
    }


def _available(gateway: Json | None) -> bool:
    return bool(gateway and gateway.get("status", {}).get("availableReplicas", 0) > 0)


def _gateway_trouble(view: View) -> Trouble | None:
    pods = [
        p for p in view.facts.pods
        if p["metadata"].get("labels", {}).get("fourways.dev/component") == "gateway"
    ]  # fmt: skip
    return next((t for t in map(trouble_of, pods) if t), None)
