"""What a thousand short-lived clusters need of their process."""

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _lazy_garbage_collector() -> Iterator[None]:
    """Collecting each cluster as it goes would take a fifth of the time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture(scope="package", autouse=True)
def _silent_operator() -> Iterator[None]:
    """What the operator says of the faults played to it would drown what a test has to say."""
    logger = logging.getLogger("fourways_operator")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
