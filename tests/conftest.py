"""What every test has at hand, and what ends one that does not end by itself."""

import faulthandler
import gc
import os
import time

import pytest

# Nothing that is imported or collected goes away again: see pytest_runtestloop.
gc.disable()

pytest.register_assert_rewrite("tests.kit")
pytest_plugins = ["tests.kit.fixtures"]

GRACE_SECONDS = 60.0
"""What a test has after its timeout, for its cleanup, before its process is ended."""

SLACK_SECONDS = 30.0
"""How much later than that it may be ended."""

_stderr = 2
_ends = 0.0
"""When the process is ended, in seconds of ``time.monotonic``."""


def pytest_configure() -> None:
    # Nothing captures the output yet: the stacks are to be seen, not kept with the test's output.
    global _stderr
    _stderr = os.dup(2)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Collect garbage seldom, and leave out what was imported: that took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """End the process of a test whose timeout did not end it, and write all stacks.

    The timeout raises an error once, in the main thread. A cleanup that hangs afterwards, or a
    call that no signal interrupts, would hold the whole suite up.

    The timer is a thread, and waiting for its end costs more than a short test. So one timer serves
    all tests of the next ``SLACK_SECONDS`` that have the same timeout.
    """
    global _ends
    marker = item.get_closest_marker("timeout")
    limit = marker.args[0] if marker else float(item.config.getini("timeout"))
    now = time.monotonic()
    latest = now + limit + GRACE_SECONDS
    if not latest <= _ends <= latest + SLACK_SECONDS:
        _ends = latest + SLACK_SECONDS
        faulthandler.dump_traceback_later(_ends - now, exit=True, file=_stderr)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    faulthandler.cancel_dump_traceback_later()
