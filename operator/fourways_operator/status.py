"""From facts to a deployment's status and events. Pure: no client, no clock but the one in facts.

A condition is decided by an ordered list of checks, one line each; the first that has something
to say decides. Status is output only: nothing is planned from it but the pinned digest, which
exists nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from croniter import croniter
from pydantic import ValidationError

from fourways_api import Batch, ModelDeployment, ModelStatus, Problem, RunStatus, Status
from fourways_api.deployment import Condition
from fourways_api.values import LOCAL_SCHEMES, scheme

from .facts import Facts, Json, Settings
from .plan import AVAILABLE_MODES
from .plan.gateway import address
from .runs import RunFacts, Trouble, runs_of, trouble_of

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
class Event:
    """Something that happened to a deployment, told once."""

    type: str
    reason: str
    message: str


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


def status_of(
    facts: Facts,
    settings: Settings,
    problems: tuple[Problem, ...] = (),
    deployment: ModelDeployment | None = None,
) -> Json:
    """Return the status to write.

    ``problems`` are what is wrong with the spec; ``deployment`` is the parsed spec when it is
    valid. An invalid spec keeps what was said of the last valid one, besides SpecValid and Ready.
    """
    old = _old_status(facts.deployment)
    generation = facts.deployment["metadata"].get("generation", 0)
    if problems or deployment is None:
        return _invalid(old, generation, problems, facts)
    choice = deployment.spec.choice()
    view = _view(facts, deployment, choice.mode, old)
    verdicts = {
        "SpecValid": Verdict("True", "Valid", "the spec is valid"),
        **{kind: _first(checks, view) for kind, checks in CONDITIONS.items()},
    }
    batch = deployment.spec.batch if choice.mode == "batch" else None
    status = Status(
        observed_generation=generation,
        mode=choice.mode,
        mode_reason=choice.reason,
        model=_model(view),
        last_run=view.latest.status if view.latest else (old.last_run if batch else None),
        last_published=view.last_published,
        next_run=_next_run(batch, facts.now),
        address=address(*deployment.key) if choice.mode in AVAILABLE_MODES else None,
        conditions=_conditions(verdicts, old, generation, facts.now),
    )  # fmt: skip
    return status.to_json()


def pinned_digest(deployment: Json) -> str | None:
    """Return the digest pinned at a model's first download, if its URI is still the same."""
    model = (deployment.get("status") or {}).get("model") or {}
    spec = deployment["spec"]["model"]
    if spec.get("digestPolicy") == "TrustOnFirstUse" and model.get("uri") == spec["uri"]:
        digest: str | None = model.get("digest")
        return digest
    return None


def _old_status(deployment: Json) -> Status:
    try:
        return Status.model_validate(deployment.get("status") or {})
    except ValidationError:
        # Another version's, or somebody's hand: it is output, so it is written anew.
        return Status()


def _next_run(batch: Batch | None, now: datetime) -> str | None:
    if batch is None or batch.suspend:
        return None
    return next_run(batch.schedule, batch.time_zone, now)


def next_run(schedule: str, time_zone: str, now: datetime) -> str:
    """Return when a schedule is due next after ``now``, RFC 3339 in UTC."""
    zone: tzinfo = UTC if time_zone == "Etc/UTC" else ZoneInfo(time_zone)
    due: datetime = croniter(schedule, now.astimezone(zone)).get_next(datetime)
    return _rfc3339(due)


def events_of(old: Json | None, new: Json) -> list[Event]:
    """Return an event for each condition that changed its status or its reason."""
    before = {c["type"]: c for c in (old or {}).get("conditions", [])}
    events = []
    for condition in new["conditions"]:
        was = before.get(condition["type"])
        changed = was is None or (was["status"], was["reason"]) != (
            condition["status"],
            condition["reason"],
        )
        if (
            changed
            and condition["status"] != "Unknown"
            and not (was is None and _is_quiet(condition))
        ):
            kind = "Normal" if _is_good(condition) else "Warning"
            events.append(Event(kind, condition["reason"], condition["message"]))
    return events


def _is_good(condition: Json) -> bool:
    if condition["type"] == "Progressing":
        return True
    good = "False" if condition["type"] == "Degraded" else "True"
    return bool(condition["status"] == good) or condition["reason"] == "WaitingForFirstRun"


def _is_quiet(condition: Json) -> bool:
    """Tell whether a first verdict is only the start of things, not news."""
    return condition["type"] in ("Progressing", "Degraded", "ModelResolved") and _is_good(condition)


# ---------------------------------------------------------------- the conditions, as tables


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
    "Ready": (
        _mode_not_available,
        _name_taken,
        _apply_failed,
        _gateway_missing,
        _nothing_published,
        _ready,
    ),
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


def _first(checks: Iterable[Check], view: View) -> Verdict:
    return next(v for v in (check(view) for check in checks) if v is not None)


# ---------------------------------------------------------------- digesting facts


def _view(facts: Facts, deployment: ModelDeployment, mode: str, old: Status) -> View:
    runs = runs_of(facts.jobs, facts.pods) if mode == "batch" else []
    seen = next((r.status for r in runs if r.status.outcome == "Succeeded"), None)
    # Jobs are cleaned up; what was published stays published.
    remembered = old.last_published if mode == "batch" else None
    return View(
        deployment=deployment,
        facts=facts,
        mode=mode,
        runs=runs,
        last_published=seen or remembered,
        digest=deployment.spec.model.digest or _seen_digest(deployment, runs, facts.deployment),
    )  # fmt: skip


def _seen_digest(deployment: ModelDeployment, runs: list[RunFacts], raw: Json) -> str | None:
    pinned = pinned_digest(raw)
    if pinned:
        return pinned
    version = deployment.spec.model.version
    seen = (r.report.digest for r in runs if r.report and r.report.version == version)
    return next((d for d in seen if d), None)


def _model(view: View) -> ModelStatus:
    model = view.deployment.spec.model
    pins = model.digest is None and scheme(model.uri) not in LOCAL_SCHEMES
    return ModelStatus(
        version=view.last_published.version if view.last_published else None,
        digest=view.digest,
        uri=model.uri if pins and view.digest else None,
    )


def _available(gateway: Json | None) -> bool:
    return bool(gateway and gateway.get("status", {}).get("availableReplicas", 0) > 0)


def _gateway_trouble(view: View) -> Trouble | None:
    pods = [
        p for p in view.facts.pods
        if p["metadata"].get("labels", {}).get("fourways.dev/component") == "gateway"
    ]  # fmt: skip
    return next((t for t in map(trouble_of, pods) if t), None)


# ---------------------------------------------------------------- writing conditions


def _conditions(
    verdicts: dict[str, Verdict], old: Status, generation: int, now: datetime
) -> tuple[Condition, ...]:
    before = {c.type: c for c in old.conditions}
    conditions = []
    for kind, verdict in verdicts.items():
        was = before.get(kind)
        same = was is not None and was.status == verdict.status
        conditions.append(
            Condition.model_validate(
                {
                    "type": kind,
                    "status": verdict.status,
                    "observedGeneration": generation,
                    "lastTransitionTime": was.last_transition_time
                    if was and same
                    else _rfc3339(now),
                    "reason": verdict.reason,
                    "message": verdict.message[:4096],
                }
            )
        )
    return tuple(conditions)


def _invalid(old: Status, generation: int, problems: tuple[Problem, ...], facts: Facts) -> Json:
    message = "; ".join(str(p) for p in problems)[:4096] or "the spec is not valid"
    verdicts = {c.type: Verdict(c.status, c.reason, c.message) for c in old.conditions}
    verdicts["SpecValid"] = Verdict("False", "Invalid", message)
    if old.last_published is None:
        verdicts["Ready"] = Verdict("False", "SpecInvalid", message)
    conditions = _conditions(verdicts, old, generation, facts.now)
    return old.model_copy(
        update={"observed_generation": generation, "conditions": conditions}
    ).to_json()


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
