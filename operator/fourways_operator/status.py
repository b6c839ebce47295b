"""Compute a deployment's status from the facts. Pure: no client, no clock but the one in facts.

Status is output only: nothing is planned from it except the pinned digest, which exists nowhere
else. ``conditions`` decides the content of the conditions; this module adds generation and times,
and derives the two conditions of kstatus, Reconciling and Stalled, from them.

A condition carries the generation of the spec that it describes. A spec that is invalid, or from
which nothing can be planned, changes nothing in the cluster: Ready keeps the generation of the spec
that still serves, while Degraded and Stalled are True at the new one. So tools that compare
generations (``kubectl wait``) and tools that read kstatus (Flux, Argo CD) do not report the refused
update as a success.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import ValidationError

from fourways_api import ModelDeployment, ModelStatus, Problem, Status
from fourways_api.reasons import Reason
from fourways_api.status import MAX_CONDITION_MESSAGE, Condition
from fourways_api.values import LOCAL_SCHEMES, scheme

from .conditions.batch import KUBERAY_SECONDS
from .conditions.common import (
    ConditionResult,
    ModeView,
    evaluate,
    gateway_answers,
    gateway_refusal,
    gateway_silence,
    pinned_digest,
)
from .conditions.realtime import KSERVE_SECONDS
from .facts import Facts, Json, rfc3339
from .kinds import INFERENCE_SERVICE, RAY_JOB
from .modes import MODES, mode_of
from .plan.gateway import address
from .pods import SLOW_START_SECONDS, age, is_ready
from .runs import without_pods
from .schedule import next_run
from .texts import shortened

__all__ = [
    "REFUSED_PODS_SECONDS",
    "failed_status",
    "next_run",
    "pinned_digest",
    "requeue_after",
    "should_answer",
    "status_of",
]

REFUSED_PODS_SECONDS = 10.0
"""Age in seconds at which a Job without pods is checked for refusals by the API server."""

RECONCILING, STALLED = "Reconciling", "Stalled"
"""Conditions of kstatus. They exist only while they are True."""


def status_of(
    facts: Facts,
    problems: tuple[Problem, ...] = (),
    deployment: ModelDeployment | None = None,
) -> Json:
    """Return the status to write.

    ``problems`` are the errors of the spec; ``deployment`` is the parsed spec if it is valid. If
    nothing could be planned, the status keeps what it said about the last valid spec.
    """
    old = _old_status(facts.deployment)
    if problems or deployment is None:
        message = "; ".join(map(str, problems)) or "the spec is not valid"
        valid = ConditionResult("False", Reason.Invalid, message)
        return _unplanned(facts, old, valid, ConditionResult("True", Reason.SpecInvalid, message))
    valid = ConditionResult("True", Reason.Valid, "the spec is valid")
    if facts.plan_fault is not None:
        message = f"the spec cannot be planned: {facts.plan_fault}"
        return _unplanned(facts, old, valid, ConditionResult("True", Reason.PlanFailed, message))
    choice = deployment.spec.choice()
    # The last status of another mode does not apply to this one.
    before = old if old.mode == choice.mode else Status()
    view = mode_of(deployment).view(facts, deployment, before)
    results = {"SpecValid": valid, **evaluate(view)}
    generations = {} if view.serves_spec else _generation_that_serves(results, old)
    status = Status(
        observed_generation=_generation(facts),
        operator=facts.operator or None,
        mode=choice.mode,
        mode_reason=choice.reason,
        model=_model(view),
        address=address(*deployment.key, choice.mode),
        drift=view.drift if deployment.spec.monitoring else None,
        conditions=_conditions({**results, **_kstatus(results)}, generations, old, facts),
        **view.status_fields(),
    )
    return _written(status)


def failed_status(facts: Facts, fault: str) -> Json:
    """Return the status of a deployment whose status could not be determined: a bug.

    It keeps the previous conditions, with their generations.
    """
    old = _old_status(facts.deployment)
    message = f"the state could not be determined: {fault}"
    kept = {c.type: c for c in old.conditions}
    results = _as_results(kept) | {
        "Degraded": ConditionResult("True", Reason.StatusFailed, message)
    }
    if "Ready" not in results:
        results["Ready"] = ConditionResult("Unknown", Reason.StatusFailed, message)
    generations = {kind: c.observed_generation for kind, c in kept.items() if kind != "Degraded"}
    conditions = _conditions(results, generations, old, facts)
    return _written(old.model_copy(update={"conditions": conditions}))


def requeue_after(facts: Facts) -> float | None:
    """Return after how many seconds the status may change without an event; None for never."""
    waits = (
        [(SLOW_START_SECONDS, pod) for pod in facts.pods if not is_ready(pod)]
        + [
            (KSERVE_SECONDS, child)
            for child in facts.children
            if INFERENCE_SERVICE.of(child) and not (child.get("status") or {}).get("conditions")
        ]
        + [
            (KUBERAY_SECONDS, child)
            for child in facts.children
            if RAY_JOB.of(child) and not child.get("status")
        ]
        + [(REFUSED_PODS_SECONDS, job) for job in without_pods(facts.jobs, facts.pods)]
    )
    ages = ((limit, age(obj, facts.now)) for limit, obj in waits)
    rest = [limit - waited for limit, waited in ages if waited is not None and waited < limit]
    # Times in Kubernetes are whole seconds.
    return max(0.0, min(rest)) + 1.0 if rest else None


def should_answer(facts: Facts, status: Json) -> bool:
    """Tell whether objects of a deployment with this status serve predictions, as far as they show.

    The gateway should then answer for it. What an edge deployment built is not asked for: devices
    download it, and answer themselves.
    """
    found = Status.model_validate(status)
    if found.mode is None or found.mode == "edge":
        return False
    return MODES[found.mode].still_serves(facts, found)


def _old_status(deployment: Json) -> Status:
    try:
        return Status.model_validate(deployment.get("status") or {})
    except ValidationError:
        # Another version or a person wrote it. It is output, so it is written anew.
        return Status()


def _generation(facts: Facts) -> int:
    generation: int = facts.deployment["metadata"].get("generation", 0)
    return generation


def _model(view: ModeView) -> ModelStatus:
    model = view.deployment.spec.model
    pins = model.digest is None and scheme(model.uri) not in LOCAL_SCHEMES
    return ModelStatus(
        version=view.version,
        digest=view.digest,
        uri=model.uri if pins and view.digest else None,
    )


# ---------------------------------------------------------------- conditions


def _unplanned(facts: Facts, old: Status, valid: ConditionResult, why: ConditionResult) -> Json:
    """Return the status if, because of ``why``, the spec changed nothing in the cluster."""
    kept = {c.type: c for c in old.conditions if c.type != RECONCILING}
    results = _as_results(kept) | {"SpecValid": valid, "Degraded": why, STALLED: why}
    judged = {"SpecValid", "Degraded", STALLED}
    ready = kept.get("Ready")
    serves = _last_spec_serves(facts, old, ready)
    if ready is None or serves is None:
        results["Ready"] = ConditionResult("False", why.reason, why.message)
        judged.add("Ready")
    elif ready.status != serves.status:
        results["Ready"] = serves
    generations = {kind: c.observed_generation for kind, c in kept.items() if kind not in judged}
    conditions = _conditions(results, generations, old, facts)
    return _written(
        old.model_copy(update={"observed_generation": _generation(facts), "conditions": conditions})
    )


_LOST = frozenset({Reason.WaitingForGateway, Reason.GatewayNotAnswering, Reason.NotReady})
"""Reasons for which Ready of the last valid spec is temporarily False."""


def _last_spec_serves(facts: Facts, old: Status, ready: Condition | None) -> ConditionResult | None:
    """Return Ready of the last valid spec, judged without that spec; None if it never served."""
    if ready is None or old.mode is None or not (ready.status == "True" or ready.reason in _LOST):
        return None
    if not gateway_answers(facts):
        return ConditionResult("False", Reason.WaitingForGateway, "waiting for the gateway")
    if (refusal := gateway_refusal(facts, old)) is not None:
        return refusal
    if not MODES[old.mode].still_serves(facts, old):
        message = "the objects of the last valid spec do not serve predictions"
        return ConditionResult("False", Reason.NotReady, message)
    if old.mode != "edge" and (silence := gateway_silence(facts, old)) is not None:
        return silence
    return ConditionResult(
        "True", Reason.Answering, "the objects of the last valid spec serve predictions"
    )


def _as_results(conditions: Mapping[str, Condition]) -> dict[str, ConditionResult]:
    return {kind: ConditionResult(c.status, c.reason, c.message) for kind, c in conditions.items()}


def _generation_that_serves(results: Mapping[str, ConditionResult], old: Status) -> dict[str, int]:
    """Return the generation of Ready if what serves is older than the last change of the spec."""
    before = next((c for c in old.conditions if c.type == "Ready"), None)
    if results["Ready"].status != "True" or before is None or before.status != "True":
        return {}
    return {"Ready": before.observed_generation}


def _kstatus(results: Mapping[str, ConditionResult]) -> dict[str, ConditionResult]:
    """Return Reconciling or Stalled, if one is True.

    Stalled: somebody has to change the spec or the cluster. Reconciling: the cluster is being
    changed to match the spec. A batch run in progress is neither, as it changes no object.
    """
    bad = [
        result
        for kind, expected in (("Ready", "True"), ("Degraded", "False"), ("ModelResolved", "True"))
        if (result := results[kind]).status != expected
    ]
    progressing = results["Progressing"]
    stopped = progressing.status == "False" and _reason(progressing) is not Reason.Idle
    for result in bad:
        reason = _reason(result)
        if reason is not None and reason.stalls:
            return {STALLED: ConditionResult("True", result.reason, result.message)}
    if stopped and not _reconciles(progressing):
        return {STALLED: ConditionResult("True", progressing.reason, progressing.message)}
    for result in (progressing, *bad):
        if _reconciles(result):
            return {RECONCILING: ConditionResult("True", result.reason, result.message)}
    return {}


def _reason(result: ConditionResult) -> Reason | None:
    return Reason.known(result.reason)


def _reconciles(result: ConditionResult) -> bool:
    reason = _reason(result)
    return reason is not None and reason.reconciles


def _conditions(
    results: Mapping[str, ConditionResult],
    generations: Mapping[str, int],
    old: Status,
    facts: Facts,
) -> tuple[Condition, ...]:
    """Return conditions to write, with the facts' generation unless ``generations`` has another."""
    before = {c.type: c for c in old.conditions}
    return tuple(
        Condition(
            type=kind,
            status=result.status,
            observed_generation=generations.get(kind, _generation(facts)),
            last_transition_time=_transition(before.get(kind), result, facts.now),
            reason=str(result.reason),
            message=shortened(result.message, MAX_CONDITION_MESSAGE),
        )
        for kind, result in results.items()
    )


def _transition(before: Condition | None, result: ConditionResult, now: datetime) -> str:
    same = before is not None and before.status == result.status
    return before.last_transition_time if before is not None and same else rfc3339(now)


def _written(status: Status) -> Json:
    return {name: value for name, value in status.to_json().items() if value != []}
