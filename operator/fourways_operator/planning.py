"""Plan the objects that the cluster should have for ModelDeployments of any mode. Pure.

A namespace's gateway is planned from all of its deployments together, each of which contributes its
share. A deployment whose share cannot be computed keeps its previous route or is left out; the
routes and the NetworkPolicy of the others are the same as if it did not exist. Its uid stays in the
gateway's configuration: what the store already has of it goes on being answered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fourways_api import ModelDeployment, Route

from .facts import Json, Kind, OperatorSettings
from .installation import admitted_spec
from .modes import MODES, mode_of
from .plan import gateway, purge
from .plan.everywhere import dressed
from .plan.gateway import GatewayShare
from .plan.parts import check_names
from .plan.routes import NOTHING_YET, Observed
from .specs import ParsedSpec

logger = logging.getLogger(__name__)


def plan(
    deployment: ModelDeployment, settings: OperatorSettings, pinned_digest: str | None = None
) -> tuple[Json, ...]:
    """Return the objects a deployment should have, each with its owner reference but a purge.

    ``pinned_digest`` is the digest of a model trusted on first use.

    Raises:
        Contradiction: the spec leads to no mode (``check`` reports this earlier).
        ValueError: a value that validation should have refused.

    """
    objects = mode_of(deployment).plan(deployment, settings, pinned_digest)
    job = purge.plan(deployment, settings)
    return dressed((*objects, job) if job else objects, settings)


def plan_runs(
    deployment: ModelDeployment,
    settings: OperatorSettings,
    pinned_digest: str | None,
    jobs: Sequence[Json],
) -> tuple[Json, ...]:
    """Return the objects that the runs of ``jobs``, all in progress, need besides the Jobs."""
    objects = mode_of(deployment).plan_runs(deployment, settings, pinned_digest, jobs)
    return dressed(objects, settings)


def later_kinds(deployment: ModelDeployment) -> tuple[Kind, ...]:
    """Return the kinds that a deployment's runs will need but its plan does not contain."""
    return mode_of(deployment).later_kinds(deployment)


def plan_gateway(
    namespace: str,
    owners: Sequence[Json],
    settings: OperatorSettings,
    observed: Observed = NOTHING_YET,
) -> tuple[Json, ...]:
    """Return the objects of a namespace's gateway; none if it has no owner.

    ``owners`` are the namespace's live ModelDeployments.
    """
    if not owners:
        return ()
    before = {route.deployment: route for route in observed.before}
    by_name = sorted(owners, key=lambda owner: str(owner["metadata"]["name"]))
    shares = [_isolated(o, settings, observed, before.get(o["metadata"]["name"])) for o in by_name]
    known = {*before, *observed.before_owners}
    objects = gateway.plan(namespace, owners, settings, [s for s in shares if s], known)
    return dressed(objects, settings)


def _require_plan(found: ParsedSpec, settings: OperatorSettings) -> None:
    """Raise what planning the spec raises: a route must not lead to objects never created."""
    spec = found.spec
    if spec is not None:
        found.once(("plan", settings), lambda: plan(spec, settings))


def share_of(deployment: ModelDeployment, url: str | None = None) -> GatewayShare | None:
    """Return what a deployment contributes to its namespace's gateway; None for no route.

    Raises:
        ValueError: a value that validation should have refused.

    """
    route = mode_of(deployment).route(deployment, url)
    return _share(route) if route else None


def _share(route: Route) -> GatewayShare:
    record = MODES[route.mode]
    secrets = [reference.secret_name for reference in record.route_secrets(route) if reference]
    claims = [route.publish] if route.publish else []
    check_names(secrets, claims)
    return GatewayShare(route, frozenset(record.route_ports(route)), tuple(secrets), tuple(claims))


def _isolated(
    document: Json, settings: OperatorSettings, observed: Observed, before: Route | None
) -> GatewayShare | None:
    """Return a deployment's share, whatever values its spec has."""
    name = document["metadata"]["name"]
    try:
        return _current_share(document, settings, observed, before)
    except Exception as error:  # noqa: BLE001  (its own reconcile reports it; the others go on)
        logger.debug("gateway: the route of %s cannot be planned: %r", name, error)
    try:
        return _share(before) if before else None
    except Exception as error:  # noqa: BLE001  (as above)
        logger.debug("gateway: the earlier route of %s cannot be planned: %r", name, error)
        return None


def _current_share(
    document: Json, settings: OperatorSettings, observed: Observed, before: Route | None
) -> GatewayShare | None:
    """Return the share of a deployment with its current spec.

    The deployment keeps its previous route while its spec is invalid and while bundles are being
    built for devices, since what serves it still exists. So a missing claim holds up only the build
    of its own deployment, never the gateway that the namespace shares.
    """
    found = admitted_spec(document, settings)
    spec = found.spec
    if spec is None:
        return _share(before) if before else None
    _require_plan(found, settings)
    record = mode_of(spec)
    if record.may_route(spec, settings, observed):
        return share_of(spec, observed.addresses.get(document["metadata"]["name"]))
    if record.keeps_route and before and before.mode == spec.spec.choice().mode:
        return _share(before)
    return None
