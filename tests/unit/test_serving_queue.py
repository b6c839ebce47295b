"""How many of the waiting requests are scored together, by what batches took before."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from fourways_http import Promise
from fourways_runtime.v2.batch_times import BatchTimes
from fourways_runtime.v2.observed import ServingMetrics
from fourways_runtime.v2.request import InferenceRequest
from fourways_runtime.v2.request_queue import RequestQueue, WaitingRequest


def taken(slow: int) -> int:
    """Return how many of 100 requests are taken, after batches of which one in ``slow`` is slow."""
    times = BatchTimes()
    queue = RequestQueue(times, ServingMetrics(CollectorRegistry()), 1024, 1024)
    for at in range(200):
        rows = at % 8 + 1
        times.note(rows, (1.5 if slow and at % slow == 0 else 1.0) * 0.005 * rows)
    one = InferenceRequest(1, None, None, False, None, None, {})
    for _ in range(100):
        queue.add(WaitingRequest(one, Promise(), 1, 0.1, 0.1))
    batch, rows = queue.next_batch(0.0)
    assert len(batch) == rows
    return rows


def test_more_is_planned_with_the_steadier_batches_are() -> None:
    steady = taken(0)
    assert 0.085 < steady * 0.005 < 0.095, "most of the time-out of 0.1 s, not all of it"
    erratic = taken(5)
    assert erratic * 0.005 * 1.5 < 0.105, "the slow ones end in time, too"
    assert steady * 0.6 < erratic < steady * 0.8
