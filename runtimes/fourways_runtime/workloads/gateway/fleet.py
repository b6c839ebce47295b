"""What a gateway sees of devices: who looked for a bundle, when, and which release it asked for.

A device tells nobody what it runs. It looks at the index of its target at intervals, and fetches
the manifest of a release that it has not verified yet. When it reported its counts of records, if
it does, is shown too. Devices with one credential are one row, as
are those without any. Each gateway knows only the requests that it answered itself since it
started.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fourways_http import Request, Response, json_response
from fourways_runtime.bundle_layout import MalformedBundle, read_index

from .views import rfc3339_at

MOST = 1000
"""Number of rows that are kept; the one that was not seen for longest goes first."""

RECENT_SECONDS = 86_400.0
"""A device that looked for a bundle within this time counts in the metrics."""


@dataclass(slots=True)
class DeviceSight:
    """What was seen of one caller and target."""

    looked_at: float
    offered: str
    """sha256 of the model manifest that the index named; empty if it names none."""

    fetched: str = ""
    """That of the release last asked for; empty if none was since the gateway started."""

    fetched_at: float = 0.0
    reported_at: float = 0.0
    """When it last reported its records; 0 if it has not since the gateway started."""


class Fleet(Collector):
    """The devices of all edge deployments, as far as this gateway has seen them."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float] = time) -> None:
        self._updates = Counter(
            "fourways_device_updates",
            "Releases that devices began to fetch.",
            ("deployment", "target"),
            registry=registry,
        )
        registry.register(self)
        self._now = now
        self._since = now()
        self._seen: OrderedDict[tuple[str, str, str], DeviceSight] = OrderedDict()

    def looked(self, request: Request, content: bytes) -> None:
        """Note that a device was given the index of its target."""
        key = _key(request)
        known = self._seen.get(key)
        offered = _manifest_of(content)
        if known is None:
            known = self._seen[key] = DeviceSight(self._now(), offered)
            if len(self._seen) > MOST:
                self._seen.popitem(last=False)
        known.looked_at, known.offered = self._now(), offered
        self._seen.move_to_end(key)

    def fetched(self, request: Request) -> None:
        """Note that a device asks for a blob: the manifest of the release that it was offered."""
        known = self._seen.get(_key(request))
        if known is not None and known.offered == request.params["digest"]:
            if known.fetched != known.offered:
                self._updates.labels(*_key(request)[:2]).inc()
            known.fetched, known.fetched_at = known.offered, self._now()

    def collect(self) -> Iterator[Metric]:
        """Return how many devices looked for a bundle lately."""
        found = GaugeMetricFamily(
            "fourways_devices",
            "Devices that looked for a bundle within a day, as this gateway saw: one for each key.",
            labels=("deployment", "target"),
        )
        after = self._now() - RECENT_SECONDS
        counted = Tally(key[:2] for key, seen in self._seen.items() if seen.looked_at > after)
        for key, count in sorted(counted.items()):
            found.add_metric(key, count)
        yield found

    def reported(self, request: Request) -> None:
        """Note that a device reported its records."""
        known = self._seen.get(_key(request))
        if known is not None:
            known.reported_at = self._now()

    def answer(self, deployment: str) -> Response:
        """Return what was seen of one deployment's devices, the latest first."""
        found = [
            _described(target, caller, sight)
            for (name, target, caller), sight in reversed(self._seen.items())
            if name == deployment
        ]
        since = rfc3339_at(self._since)
        return json_response({"deployment": deployment, "since": since, "devices": found})


def _described(target: str, caller: str, sight: DeviceSight) -> dict[str, Any]:
    return {
        "target": target,
        "caller": caller or None,
        "looked_at": rfc3339_at(sight.looked_at),
        "offered": f"sha256:{sight.offered}" if sight.offered else None,
        "fetched": f"sha256:{sight.fetched}" if sight.fetched else None,
        "fetched_at": rfc3339_at(sight.fetched_at) if sight.fetched else None,
        "reported_at": rfc3339_at(sight.reported_at) if sight.reported_at else None,
    }


def _key(request: Request) -> tuple[str, str, str]:
    return request.params["deployment"], request.params["target"], request.caller or ""


def _manifest_of(index: bytes) -> str:
    """Return the digest of the model manifest that an index names, without its prefix."""
    try:
        return read_index(index).model.digest.removeprefix("sha256:")
    except MalformedBundle:
        return ""
