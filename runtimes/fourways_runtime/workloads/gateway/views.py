"""What the gateway derives from a published run, once instead of for every response."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from time import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from fourways_api import Contract
from fourways_runtime.io.store.base import PublishedRun
from fourways_runtime.v2.request import RequestReader

from . import v2


class DeploymentCounters:
    """A deployment's children of the gateway's metrics: keys requested, and keys missing."""

    __slots__ = ("keys", "misses")

    def __init__(self, keys: Counter, misses: Counter) -> None:
        self.keys = keys
        self.misses = misses


class PublishedView:
    """A published run, prepared for answering requests."""

    __slots__ = ("_computed", "computed_at", "counters", "outputs", "reader", "run")

    def __init__(
        self, run: PublishedRun, counters: DeploymentCounters, reader: RequestReader
    ) -> None:
        self.run = run
        self.counters = counters
        self.reader = reader
        self.outputs = v2.StoredOutputs(run.contract)
        self._computed = run.computed_at.timestamp()
        self.computed_at = rfc3339(run.computed_at)

    def age_seconds(self) -> float:
        """Return the age of the predictions, never negative: clocks of two hosts may differ."""
        return age_seconds(self._computed)

    def provenance(self) -> dict[str, Any]:
        """Return the run that the predictions are from, and their age."""
        return {
            "computed_at": self.computed_at,
            "age_seconds": self.age_seconds(),
            "run": self.run.name,
            "digest": self.run.digest,
        }


class PublishedViews:
    """The last published run seen, by deployment. Only runs that the store returned are added."""

    def __init__(
        self, registry: CollectorRegistry, new_reader: Callable[[Contract], RequestReader]
    ) -> None:
        self._new_reader = new_reader
        self._views: dict[str, PublishedView] = {}
        self._keys = Counter(
            "fourways_lookup_keys", "Entity keys asked for.", ("deployment",), registry=registry
        )
        self._misses = Counter(
            "fourways_lookup_misses",
            "Entity keys asked for that have no prediction.",
            ("deployment",),
            registry=registry,
        )
        self._age = Gauge(
            "fourways_prediction_age_seconds",
            "Age of the predictions published last.",
            ("deployment",),
            registry=registry,
        )

    def get(self, deployment: str) -> PublishedView | None:
        """Return the run seen last, which may not be the one published now."""
        return self._views.get(deployment)

    def see(self, deployment: str, run: PublishedRun) -> PublishedView:
        """Return the view of a run that the store just returned as published."""
        view = self._views.get(deployment)
        if view is not None and (view.run is run or _same(view.run, run)):
            return view
        counters = (
            view.counters
            if view is not None
            else DeploymentCounters(self._keys.labels(deployment), self._misses.labels(deployment))
        )
        reader = (
            view.reader
            if view is not None and view.run.contract == run.contract
            else self._new_reader(run.contract)
        )
        view = self._views[deployment] = PublishedView(run, counters, reader)
        self._age.labels(deployment).set_function(view.age_seconds)
        return view

    def forget(self, deployment: str) -> None:
        """Drop a deployment that is no longer published, and its metrics."""
        if self._views.pop(deployment, None) is not None:
            for metric in (self._keys, self._misses, self._age):
                metric.remove(deployment)

    def names(self) -> list[str]:
        """Return the names of the deployments seen."""
        return list(self._views)


def _same(one: PublishedRun, other: PublishedRun) -> bool:
    return one.name == other.name and one.computed_at == other.computed_at


def age_seconds(computed: float) -> float:
    """Return the seconds since a moment (given in seconds since the epoch), never negative."""
    return max(0.0, round(time() - computed, 3))


def rfc3339(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_at(moment: float) -> str:
    """Return a moment, in seconds since 1970, as RFC 3339."""
    return rfc3339(datetime.fromtimestamp(moment, UTC))


def rfc3339_now() -> str:
    """Return the current time as RFC 3339."""
    return rfc3339(datetime.now(UTC))
