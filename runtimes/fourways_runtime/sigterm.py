"""SIGTERM of a job: raised in the main thread, at once or after what must not be interrupted.

Imports nothing heavy: scoring uses it too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Not an Exception, so that no handler treats it as a failure.

    Libraries clean up when they are interrupted by Ctrl-C: psycopg cancels the statement that runs,
    and its connection can still be used to release what the worker holds.
    """


arrived = threading.Event()
"""Set once SIGTERM has arrived."""


class _Deferral:
    """Whether SIGTERM has to wait, and whether it does. The main thread's alone."""

    deferred = False
    waits = False


def raise_on_sigterm() -> None:
    """Have SIGTERM raise :class:`Terminated` in the main thread, once."""
    arrived.clear()
    signal.signal(signal.SIGTERM, terminate)


def terminate(signum: int, frame: object) -> None:
    """Handle SIGTERM. Raises Terminated, unless it is deferred."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    arrived.set()
    if _Deferral.deferred:
        _Deferral.waits = True
    else:
        raise Terminated


@contextmanager
def deferred() -> Iterator[None]:
    """Have SIGTERM wait for the end of the context, which must be short.

    For extension modules that crash if a call of theirs to Python raises an error.
    """
    if threading.current_thread() is not threading.main_thread() or _Deferral.deferred:
        yield
        return
    _Deferral.deferred = True
    try:
        yield
    finally:
        _Deferral.deferred = False
        waits, _Deferral.waits = _Deferral.waits, False
        if waits:
            raise Terminated
