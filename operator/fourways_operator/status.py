"""From facts to a deployment's status and events. Pure: no client, no clock but the one in facts.

Status is output only: nothing is planned from it but the pinned digest, which exists nowhere else.
What its conditions say is decided in ``conditions``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from croniter import croniter
from pydantic import ValidationError

from fourways_api import Batch, ModelDeployment, ModelStatus, Problem, Status
from fourways_api.deployment import Condition
from fourways_api.values import LOCAL_SCHEMES, scheme

from .conditions import Verdict, View, verdicts_of
from .facts import Facts, Json
from .plan import AVAILABLE_MODES
from .plan.gateway import address
from .runs import RunFacts, runs_of


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a deployment, told once."""

    type: str
    reason: str
    message: str


def status_of(
    facts: Facts,
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
        **verdicts_of(view),
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
