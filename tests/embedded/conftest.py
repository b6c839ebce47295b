"""The order of the files: few workers share them, so a long one must not be the last."""

import subprocess
import sys
from collections import Counter

import pytest

from tools.demo.questions import EXAMPLES

LONG = (
    "test_compiled.py",
    "test_tutorials.py",
    "test_batch_ray.py",
    "test_up_terminal.py",
    "test_up.py",
    "test_streaming_torture.py",
    "test_streaming_kafka.py",
    "test_edge_torture.py",
    "test_edge_kills.py",
    "test_notebook.py",
    "test_kills_torture.py",
    "test_callers_torture.py",
    "test_serving_torture.py",
    "test_first_answer.py",
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


@pytest.fixture(scope="session")
def examples_complete() -> None:
    """Complete the artifacts of the examples."""
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
