"""Gauges that name a deployment: set from its status, gone with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fourways_operator.facts import Json
from fourways_operator.metrics import Metrics
from fourways_operator.work_queue import Key
from tests.kit import status_facts as batch
from tests.kit.status_facts import WRONG, cron_job, later, status_at

KEY = Key("demo", "m")
NAMES = ("ready", "stale", "failed")


def gauges(status: Json) -> dict[str, float | None]:
    metrics = Metrics()
    metrics.seen(KEY, status)
    return values(metrics, status.get("mode") or "none")


def values(metrics: Metrics, mode: str = "batch") -> dict[str, float | None]:
    labels = {"namespace": "demo", "name": "m", "mode": mode}
    return {
        name: metrics.registry.get_sample_value(f"fourways_deployment_{name}", labels)
        for name in NAMES
    }


READY = status_at(batch.facts(batch.GOOD_RUN))
EDITED = replace(batch.facts(batch.GOOD_RUN), deployment=later(batch.deployment(), READY))
OVERDUE = replace(
    batch.facts(batch.GOOD_RUN),
    children=(batch.GOOD_RUN[0], cron_job("2026-03-01T03:00:00Z")),
    now=datetime(2026, 3, 3, 12, 0, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (status_at(batch.facts()), (0, 0, 0)),
        (READY, (1, 0, 0)),
        (status_at(batch.facts(batch.FAILED_RUN, batch.GOOD_RUN)), (1, 0, 1)),
        (status_at(EDITED, WRONG), (1, 1, 1)),
        (status_at(OVERDUE), (1, 1, 1)),
        (status_at(batch.facts(), WRONG), (0, 0, 1)),
    ],
    ids=["new", "ready", "last run failed", "update refused", "overdue", "never valid"],
)
def test_a_deployment_is_ready_stale_or_failed(status: Json, expected: tuple[int, ...]) -> None:
    assert gauges(status) == dict(zip(NAMES, expected, strict=True))


def test_what_is_deleted_or_of_another_mode_leaves_no_series() -> None:
    metrics = Metrics()
    metrics.seen(KEY, READY)
    metrics.seen(KEY, READY | {"mode": "edge"})
    assert set(values(metrics).values()) == {None}
    assert values(metrics, "edge")["ready"] == 1
    metrics.forget_all_but(frozenset())
    assert set(values(metrics, "edge").values()) == {None}
