"""The condition Drifted: whether scored records differ from those of the training.

Only deployments with ``spec.monitoring`` have it. It decides nothing else: a deployment that has
drifted is Ready and not Degraded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fourways_api import DriftStatus, FieldDrift, ModelDeployment
from fourways_api.display import displayed
from fourways_api.reasons import Reason

from .common import ConditionChain, ConditionResult, ModeView, constant

DRIFTED = "Drifted"

_MAX_NAMED = 3


def drift_conditions(deployment: ModelDeployment) -> Mapping[str, ConditionChain[ModeView]]:
    """Return the condition and its chain, if the deployment's records are compared."""
    return {} if deployment.spec.monitoring is None else {DRIFTED: _CHAIN}


def worst(found: Iterable[DriftStatus | None]) -> DriftStatus | None:
    """Return the comparison with the greatest difference; None if there is none."""
    known = [each for each in found if each is not None]
    return max(known, key=_severity, default=None)


def _severity(drift: DriftStatus) -> tuple[bool, float]:
    return drift.drifted > 0, max((each.psi for each in drift.fields), default=0.0)


def _has_drifted(view: ModeView) -> ConditionResult | None:
    if view.drift is None or not view.drift.drifted:
        return None
    drifted = [_described(each) for each in view.drift.fields if each.drifted]
    more = view.drift.drifted - _MAX_NAMED
    also = f", and {more} more" if more > 0 else ""
    message = (
        f"{', '.join(drifted[:_MAX_NAMED])}{also}: distributed otherwise than in "
        "training, status.drift has the figures"
    )
    return ConditionResult("True", Reason.DriftDetected, message)


def _described(each: FieldDrift) -> str:
    # The index changes with every look, and each change of the text would be a write.
    return f"{each.side} {displayed(each.name, 63)}"


def _has_not_drifted(view: ModeView) -> ConditionResult | None:
    if view.drift is None:
        return None
    return ConditionResult(
        "False", Reason.NoDrift, "records are distributed as those of the training"
    )


_CHAIN: ConditionChain[ModeView] = (
    _has_drifted,
    _has_not_drifted,
    constant(
        "Unknown", Reason.TooFewRecords, "too few records were scored to compare with the training"
    ),
)
