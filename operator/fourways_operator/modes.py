"""The modes, each registered once: what the operator plans, routes, watches and reports for it.

To add a mode, add its name to ``fourways_api.Mode``, write its modules in ``plan`` and
``conditions``, and add its record here. All code that depends on the mode uses this table; a test
compares it with the API's names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fourways_api import Mode, ModelDeployment, Route, SecretReference, Status

from .conditions.batch import BatchView
from .conditions.common import ModeView
from .conditions.edge import EdgeView
from .conditions.realtime import RealtimeView
from .conditions.streaming import StreamingView
from .facts import Facts, Json, Kind, OperatorSettings
from .kinds import INFERENCE_SERVICE, JOB
from .plan import batch, edge, realtime, streaming
from .plan.routes import Observed, address_of, has_succeeded

Objects = tuple[Json, ...]


def _nothing_for_runs(
    deployment: ModelDeployment,
    settings: OperatorSettings,
    pinned_digest: str | None,
    jobs: Sequence[Json],
) -> Objects:
    return ()


@dataclass(frozen=True, slots=True)
class ModeRecord:
    """What the operator needs to know about a mode.

    The functions may raise: the caller reports the exception for the deployment concerned.
    """

    plan: Callable[[ModelDeployment, OperatorSettings, str | None], Objects]
    """Returns the deployment's own objects; the last argument is the pinned digest."""

    view: Callable[[Facts, ModelDeployment, Status], ModeView]
    """Returns the view that decides the mode's conditions."""

    still_serves: Callable[[Facts, Status], bool]
    """Tells whether the result of an earlier spec still serves if the current one is unreadable."""

    plan_runs: Callable[
        [ModelDeployment, OperatorSettings, str | None, Sequence[Json]], Objects
    ] = _nothing_for_runs
    """Returns the objects that runs in progress, given as Jobs, need besides their Jobs."""

    later_kinds: Callable[[ModelDeployment], tuple[Kind, ...]] = lambda deployment: ()
    """Returns the kinds that runs will need but the plan does not contain."""

    route: Callable[[ModelDeployment, str | None], Route | None] = lambda deployment, url: None
    """Returns the deployment's route in the gateway; ``url`` is the address from KServe."""

    may_route: Callable[[ModelDeployment, OperatorSettings, Observed], bool] = lambda *_: True
    """Tells whether a new route may replace the old one yet."""

    keeps_route: bool = False
    """Whether the old route stays until a new one may replace it."""

    route_ports: Callable[[Route], set[int]] = lambda route: set()
    """Returns the TCP ports that the gateway connects to for a route."""

    route_secrets: Callable[[Route], list[SecretReference | None]] = lambda route: []
    """Returns the Secrets that the gateway reads for a route."""

    route_depends_on: Mapping[str, Callable[[Json], object]] = field(default_factory=dict)
    """By kind of child: the part of the child that the gateway's routes depend on."""


MODES: Mapping[Mode, ModeRecord] = {
    "batch": ModeRecord(
        plan=batch.plan,
        view=BatchView.of,
        still_serves=BatchView.still_serves,
        plan_runs=batch.plan_runs,
        later_kinds=batch.later_kinds,
    ),
    "realtime": ModeRecord(
        plan=realtime.plan,
        view=RealtimeView.of,
        still_serves=RealtimeView.still_serves,
        route=realtime.route,
        later_kinds=realtime.later_kinds,
        route_ports=realtime.route_ports,
        route_depends_on={INFERENCE_SERVICE.kind: address_of},
    ),
    "streaming": ModeRecord(
        plan=streaming.plan,
        view=StreamingView.of,
        still_serves=StreamingView.still_serves,
        route=streaming.route,
        route_ports=streaming.route_ports,
        route_secrets=streaming.route_secrets,
    ),
    "edge": ModeRecord(
        plan=edge.plan,
        view=EdgeView.of,
        still_serves=EdgeView.still_serves,
        route=edge.route,
        may_route=edge.is_built,
        keeps_route=True,
        route_ports=edge.route_ports,
        route_secrets=edge.route_secrets,
        route_depends_on={JOB.kind: has_succeeded},
    ),
}


def mode_of(deployment: ModelDeployment) -> ModeRecord:
    """Return the record of a deployment's mode.

    Raises:
        Contradiction: the spec leads to no mode (``check`` reports this earlier).

    """
    return MODES[deployment.spec.choice().mode]
