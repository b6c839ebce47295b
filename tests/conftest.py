"""What every test has at hand, and what ends one that does not end by itself."""

import faulthandler
import os
from collections.abc import Generator

import pytest

pytest.register_assert_rewrite("tests.kit")
pytest_plugins = ["tests.kit.fixtures"]

GRACE_SECONDS = 60.0
"""What a test has after its timeout, for its cleanup, before its process is ended."""

_stderr = 2


def pytest_configure() -> None:
    # Nothing captures the output yet: the stacks are to be seen, not kept with the test's output.
    global _stderr
    _stderr = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process of a test whose timeout did not end it, and write all stacks.

    The timeout raises an error once, in the main thread. A cleanup that hangs afterwards, or a
    call that no signal interrupts, would hold the whole suite up.
    """
    marker = item.get_closest_marker("timeout")
    limit = marker.args[0] if marker else float(item.config.getini("timeout"))
    faulthandler.dump_traceback_later(limit + GRACE_SECONDS, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
