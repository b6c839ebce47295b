"""The chaos run of a stream worker in its short form: nothing lost, nothing scored twice."""

from __future__ import annotations

import pytest

from tools.torture.stream import DISTURBANCES, Plan, run

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(900)]


def test_disturbed_stores_and_brokers_lose_and_double_nothing() -> None:
    result = run(Plan("nats", times=1, pause=7.0, full=4.0, events=600))
    assert result.faults == []
    assert len(result.recoveries) == 2 * len(DISTURBANCES)
    assert result.events > 600
