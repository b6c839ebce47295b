"""The order of the files: two workers share them, so a long one must not be the last."""

from collections import Counter

import pytest

LONG = (
    "test_compiled.py",
    "test_batch_ray.py",
    "test_streaming_torture.py",
    "test_streaming_kafka.py",
    "test_edge_torture.py",
    "test_edge_kills.py",
    "test_batch_publish.py",
    "test_parity.py",
    "test_batch_ends.py",
    "test_up_batch.py",
    "test_streaming_refusals.py",
)
"""Files with few tests that take long. After them come those with many tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    counts = Counter(item.path for item in items)
    here = __file__.removesuffix("conftest.py")

    def turn(item: pytest.Item) -> tuple[int, int, str]:
        name = item.path.name
        listed = LONG.index(name) if name in LONG else len(LONG)
        return listed, -counts[item.path], str(item.path)

    if all(str(item.path).startswith(here) for item in items):
        items.sort(key=turn)
