"""The gateway's modes: one record each, registered once.

A new mode needs a handler (a :class:`.mode.Mode`) and an entry in :data:`MODES`. Batch has no
record: it handles every deployment without a route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ssl import SSLContext

from prometheus_client import Counter

from fourways_api import GatewayConfig, Route
from fourways_http import ByteRoom
from fourways_runtime.io.store.streams.stream import LiveLookup

from .batch import BatchHandler
from .coalescer import LookupCoalescer
from .demand import DemandBoard
from .edge import DeviceHandler
from .forward import RealtimeHandler
from .mode import Mode
from .observed import UpstreamGauges
from .publishing import OpenPublisher
from .serving_runtime import ServingRuntimeHandler
from .sleeping import SleepingHandler
from .stream import StreamHandler
from .views import DeploymentCounters


@dataclass(frozen=True, slots=True)
class SharedParts:
    """The parts that all handlers of one gateway share."""

    config: GatewayConfig
    upstream: UpstreamGauges
    """What is under way to model servers, by deployment."""

    faults: Counter
    """Failed requests, by deployment and the party at fault."""

    live: LookupCoalescer[LiveLookup | None]
    counters: Callable[[str], DeploymentCounters]
    open_publisher: OpenPublisher
    draining: Callable[[], bool]
    demand: DemandBoard
    """What is reported about deployments that scale to zero."""

    held: ByteRoom
    """Room for the bodies of requests that wait for a replica."""

    stored: BatchHandler
    """Answers by published runs."""

    server_tls: Callable[[], SSLContext] | None
    """Returns the context of a connection to a model server with an https address; None: the
    system's authorities are trusted."""

    arriving: ByteRoom
    """Room for the responses of model servers while they arrive."""


@dataclass(frozen=True, slots=True)
class GatewayMode:
    """How the gateway handles deployments of one mode."""

    handler: Callable[[Route, SharedParts], Mode]
    needs_store: bool
    """Whether the mode is entirely unavailable while the prediction store is down."""


def _realtime(route: Route, parts: SharedParts) -> Mode:
    if route.model_name is not None:
        return ServingRuntimeHandler(route, parts.upstream, parts.faults, parts.arriving)
    if route.wake is not None:
        return SleepingHandler(
            route,
            parts.upstream,
            parts.faults,
            parts.demand,
            parts.held,
            parts.stored if route.wake.stored else None,
            parts.server_tls,
            parts.arriving,
        )
    return RealtimeHandler(route, parts.upstream, parts.faults, parts.server_tls, parts.arriving)


def _streaming(route: Route, parts: SharedParts) -> Mode:
    return StreamHandler(
        route,
        parts.config,
        parts.live,
        parts.counters(route.deployment),
        parts.faults,
        parts.open_publisher,
        parts.draining,
    )


def _edge(route: Route, parts: SharedParts) -> Mode:
    return DeviceHandler(route)


MODES: Mapping[str, GatewayMode] = {
    "realtime": GatewayMode(_realtime, needs_store=False),
    "streaming": GatewayMode(_streaming, needs_store=True),
    "edge": GatewayMode(_edge, needs_store=False),
}
