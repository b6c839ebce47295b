"""What devices tell of their records: one report a device, judged together for each deployment.

Owns the path that reports come by. The gateway keeps the latest report of each device in memory,
and nothing else: a device tells its whole window each time, so a gateway that was restarted, or
another replica, knows it after the next round. What a device may tell and weigh is bounded by
:mod:`fourways_runtime.scoring.device_report` and :mod:`fourways_runtime.scoring.fleet_drift`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fourways_api import GatewayConfig, Route
from fourways_api.runtime_config import FleetDrift
from fourways_http import HttpError, Request, Response, json_response
from fourways_runtime.callers.guard import AUTHORIZATION, FORWARDED_AUTHORIZATION
from fourways_runtime.process import in_thread

from ..drift_metrics import drift_metrics
from .bundles import Bundles
from .mode import RETRY

if TYPE_CHECKING:
    from fourways_runtime.scoring.device_report import DeviceReport
    from fourways_runtime.scoring.fleet_drift import FleetFinding, FleetReports

logger = logging.getLogger("fourways.gateway.devices")

JUDGED_SECONDS = 10.0
"""Reports are added up and compared at most once in this time."""

LOOK_SECONDS = 10.0
"""The profile of a published bundle is read at most once in this time."""


class _Fleet:
    """The reports of one deployment."""

    def __init__(self, settings: FleetDrift) -> None:
        self.settings = settings
        self.reports: FleetReports | None = None
        self.finding: FleetFinding | None = None
        self.judged = -JUDGED_SECONDS
        self.looked: dict[str, float] = {}
        """When each target's profile was read."""


class DeviceReports:
    """The reports of all edge deployments whose records are compared, on the running event loop."""

    def __init__(
        self,
        config: GatewayConfig,
        bundles: Bundles,
        registry: CollectorRegistry,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._bundles = bundles
        self._clock = clock
        self._asks_who = config.callers is not None
        self._fleets = {
            route.deployment: _Fleet(route.drift) for route in config.routes if route.drift
        }
        if self._fleets:
            _FleetGauges(self._fleets, registry)

    def compares(self, deployment: str) -> bool:
        """Return whether records of a deployment's devices are compared."""
        return deployment in self._fleets

    async def take(self, route: Route, request: Request) -> Response:
        """Take a device's report.

        Raises:
            HttpError: 404 if records are not compared, 401 without credentials, 400 for a report
                that breaks the format, 409 for one of another profile than the published one.

        """
        from fourways_runtime.scoring import device_report as reports

        fleet = self._fleet(route)
        if self._asks_who and not _has_credentials(request):
            raise HttpError(401, "a device reports with a key of its own")
        try:
            document, digest = reports.profile_of(request.body)
            kept = await self._reports(fleet, route, request.params["target"], digest)
            report = reports.read_report(document, kept.profiler)
        except reports.InvalidReport as fault:
            raise HttpError(400, str(fault)) from None
        kept.take(_caller(request, report), report, self._clock())
        return json_response({"window_seconds": fleet.settings.window_seconds})

    async def finding(self, deployment: str) -> FleetFinding:
        """Return the comparison of all devices' reports, at most :data:`JUDGED_SECONDS` old."""
        from fourways_runtime.scoring.fleet_drift import FleetFinding, judge

        fleet, now = self._fleets[deployment], self._clock()
        if fleet.finding is None or now - fleet.judged >= JUDGED_SECONDS:
            fleet.judged = now
            reports, found = fleet.reports, FleetFinding()
            if reports is not None:
                kept = reports.present(now - fleet.settings.window_seconds)
                most, at = fleet.settings.max_drift, datetime.now(UTC)
                found = await in_thread(lambda: judge(reports.profiler, kept, most, at), "fleet")
            fleet.finding = found
        return fleet.finding

    async def look(self) -> None:
        """Bring the metrics up to date."""
        for deployment in self._fleets:
            await self.finding(deployment)

    def _fleet(self, route: Route) -> _Fleet:
        fleet = self._fleets.get(route.deployment)
        if fleet is None:
            raise HttpError(404, f"records of {route.deployment} are not compared")
        return fleet

    async def _reports(self, fleet: _Fleet, route: Route, target: str, digest: str) -> FleetReports:
        """Return where reports of this profile are kept. Raises HttpError 409."""
        if fleet.reports is not None and fleet.reports.digest == digest:
            return fleet.reports
        now = self._clock()
        if now - fleet.looked.get(target, -LOOK_SECONDS) >= LOOK_SECONDS:
            published = await self._bundles.profile(route, target)
            # After the bundles were read: names of targets that do not exist are not kept.
            fleet.looked[target] = now
            if published is not None and published[0] == digest:
                fleet.reports, fleet.finding = _opened(*published), None
                return fleet.reports
        raise HttpError(409, "the report is of another profile than the published bundle", RETRY)


def _opened(digest: str, content: bytes) -> FleetReports:
    """Return the place for reports of a profile. Raises HttpError 503 if it cannot be read."""
    from fourways_api.training_profile import TrainingProfile
    from fourways_runtime.scoring.fleet_drift import FleetReports
    from fourways_runtime.scoring.profile import RecordProfiler

    try:
        profile = TrainingProfile.model_validate_json(content)
    except ValueError:
        logger.warning("the published profile cannot be read", extra={"digest": digest})
        raise HttpError(503, "the published profile cannot be read", RETRY) from None
    return FleetReports(digest, RecordProfiler(profile))


def _has_credentials(request: Request) -> bool:
    return any(request.header(name) for name in (AUTHORIZATION, FORWARDED_AUTHORIZATION))


def _caller(request: Request, report: DeviceReport) -> str:
    # Without authentication, devices are told apart only by the names that they give.
    return request.caller or f"device {report.device}"


class _FleetGauges(Collector):
    """The last comparison of each deployment's devices, as metrics."""

    def __init__(self, fleets: Mapping[str, _Fleet], registry: CollectorRegistry) -> None:
        self._fleets = fleets
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics in the form that Prometheus' client needs."""
        found = {
            name: (fleet.finding.fields, fleet.finding.status)
            for name, fleet in self._fleets.items()
            if fleet.finding is not None
        }
        yield from drift_metrics(found)
