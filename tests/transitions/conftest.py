"""What the transitions need of their process."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _silent_operator() -> Iterator[None]:
    """What the operator says of the faults played to it would drown what a test has to say."""
    logger = logging.getLogger("fourways_operator")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
