"""From facts to a deployment's status. Pure: no client, no clock but the one in facts.

Status is output only: nothing is planned from it but the pinned digest, which exists nowhere else.
What its conditions say is decided in ``conditions``.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from fourways_api import ModelDeployment, ModelStatus, Problem, Status
from fourways_api.deployment import Condition
from fourways_api.values import LOCAL_SCHEMES, scheme

from .conditions import ConditionResult, ModeView, evaluate, view_of
from .conditions.batch import KUBERAY_SECONDS, next_run
from .conditions.common import pinned_digest
from .conditions.realtime import KSERVE_SECONDS
from .facts import Facts, Json, rfc3339
from .plan import INFERENCE_SERVICE, RAY_JOB
from .plan.gateway import address
from .pods import SLOW_START_SECONDS, age, is_ready

__all__ = ["next_run", "pinned_digest", "requeue_after", "status_of"]


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
    # What is remembered of one mode says nothing of another.
    view = view_of(facts, deployment, old if old.mode == choice.mode else Status())
    results = {
        "SpecValid": ConditionResult("True", "Valid", "the spec is valid"),
        **evaluate(view),
    }
    status = Status(
        observed_generation=generation,
        mode=choice.mode,
        mode_reason=choice.reason,
        model=_model(view),
        address=address(*deployment.key, choice.mode),
        conditions=_conditions(results, old, generation, facts.now),
        **view.status_fields(),
    )
    return _written(status)


def requeue_after(facts: Facts) -> float | None:
    """Return in how many seconds there may be something to say that no event will tell of."""
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
    )
    ages = ((limit, age(obj, facts.now)) for limit, obj in waits)
    rest = [limit - waited for limit, waited in ages if waited is not None and waited < limit]
    # Ages are told in whole seconds.
    return max(0.0, min(rest)) + 1.0 if rest else None


def _old_status(deployment: Json) -> Status:
    try:
        return Status.model_validate(deployment.get("status") or {})
    except ValidationError:
        # Another version's, or somebody's hand: it is output, so it is written anew.
        return Status()


def _model(view: ModeView) -> ModelStatus:
    model = view.deployment.spec.model
    pins = model.digest is None and scheme(model.uri) not in LOCAL_SCHEMES
    return ModelStatus(
        version=view.version,
        digest=view.digest,
        uri=model.uri if pins and view.digest else None,
    )


# ---------------------------------------------------------------- writing conditions


def _conditions(
    results: dict[str, ConditionResult], old: Status, generation: int, now: datetime
) -> tuple[Condition, ...]:
    before = {c.type: c for c in old.conditions}
    conditions = []
    for kind, result in results.items():
        was = before.get(kind)
        same = was is not None and was.status == result.status
        conditions.append(
            Condition.model_validate(
                {
                    "type": kind,
                    "status": result.status,
                    "observedGeneration": generation,
                    "lastTransitionTime": was.last_transition_time
                    if was and same
                    else rfc3339(now),
                    "reason": result.reason,
                    "message": result.message[:4096],
                }
            )
        )
    return tuple(conditions)


def _invalid(old: Status, generation: int, problems: tuple[Problem, ...], facts: Facts) -> Json:
    message = "; ".join(str(p) for p in problems)[:4096] or "the spec is not valid"
    results = {c.type: ConditionResult(c.status, c.reason, c.message) for c in old.conditions}
    results["SpecValid"] = ConditionResult("False", "Invalid", message)
    if results.get("Ready") is None or results["Ready"].status != "True":
        results["Ready"] = ConditionResult("False", "SpecInvalid", message)
    conditions = _conditions(results, old, generation, facts.now)
    return _written(
        old.model_copy(update={"observed_generation": generation, "conditions": conditions})
    )


def _written(status: Status) -> Json:
    return {name: value for name, value in status.to_json().items() if value != []}
