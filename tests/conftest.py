"""What every test has at hand, and what ends one that does not end by itself."""

import ctypes
import faulthandler
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# Nothing that is imported or collected goes away again: see pytest_runtestloop.
gc.disable()

pytest.register_assert_rewrite("tests.kit")

GRACE_SECONDS = 60.0
"""What a test has after its timeout, for its cleanup, before its process is ended."""

SLACK_SECONDS = 30.0
"""How much later than that it may be ended."""

END_SECONDS = 60.0
"""What a process has for its end after its last test: a thread or child may never end."""

PROGRESS = os.environ.get("FOURWAYS_TESTS_PROGRESS")
"""The folder in which tools.test looks for what runs and what failed, if it started the tests."""

WORKER = "PYTEST_XDIST_WORKER" in os.environ
"""Whether this process is one of several that another gives tests to."""

_stderr = 2
_ends = 0.0
"""When the process is ended, in seconds of ``time.monotonic``."""


def pytest_configure(config: pytest.Config) -> None:
    # Only where tests run: who gives them to others would wait a second for its imports.
    if WORKER or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.kit.fixtures")
    # Nothing captures the output yet: the stacks are to be seen, not kept with the test's output.
    global _stderr
    _stderr = os.dup(2)
    faulthandler.register(signal.SIGUSR1, file=_stderr)
    os.register_at_fork(after_in_child=_die_with_parent)


def _die_with_parent() -> None:
    """Let a fork of this process end with it: the fork holds the pipe that says it still runs."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class _Scheduling(LoadFileScheduling):
    """Runs a file's tests in one worker, as xdist does, and ends after a worker that crashed.

    A worker runs its last test only when it knows that there is no other. xdist 3.8 does not tell
    the one that replaces a crashed worker, if it gives it the last file with one test left.
    """

    def _reschedule(self, node: WorkerController) -> None:
        super()._reschedule(node)
        if not self.workqueue:
            node.shutdown()


# Optional: test_compiled.py runs tests without xdist.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling | None:
    return _Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


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
    if PROGRESS:
        Path(PROGRESS, f"{os.getpid()}.running").write_text(item.nodeid)
    marker = item.get_closest_marker("timeout")
    limit = marker.args[0] if marker else float(item.config.getini("timeout"))
    now = time.monotonic()
    latest = now + limit + GRACE_SECONDS
    if not latest <= _ends <= latest + SLACK_SECONDS:
        _ends = latest + SLACK_SECONDS
        faulthandler.dump_traceback_later(_ends - now, exit=True, file=_stderr)


@pytest.hookimpl(trylast=True)
def pytest_exception_interact() -> None:
    """Set the timer again: for a failed test, pytest and its plugin cancel theirs and ours.

    They do so for those who look at the failure in a debugger. Without one, the cleanup of a failed
    test is what hangs most often.
    """
    if _ends:  # Else no test runs in this process: the module of one could not be imported.
        left = max(_ends - time.monotonic(), GRACE_SECONDS)
        faulthandler.dump_traceback_later(left, exit=True, file=_stderr)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell tools.test of a failure at once: a suite that is ended writes no summary."""
    if PROGRESS and report.failed and not WORKER:
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else str(report.longrepr)
        with Path(PROGRESS, "failed").open("a") as file:
            file.write(f"{report.nodeid} ({report.when}): {' '.join(why.split())[:300]}\n")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    if PROGRESS:
        Path(PROGRESS, f"{os.getpid()}.running").write_text("no test: it has ended its session")
    faulthandler.cancel_dump_traceback_later()
    if not WORKER:  # A worker waits for the others' end, and the process that started it ends it.
        faulthandler.dump_traceback_later(END_SECONDS, exit=True, file=_stderr)
