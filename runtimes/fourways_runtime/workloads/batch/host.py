"""A worker's interface to its process and machine: its name, memory and signals."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def worker() -> str:
    """Return a human-readable name for this worker."""
    index = os.environ.get("JOB_COMPLETION_INDEX")
    return socket.gethostname() + (f"/{index}" if index else "")


@contextmanager
def system_allocator() -> Iterator[None]:
    """Make Arrow return freed memory: its own pools keep what a large table once needed."""
    import pyarrow as pa

    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGTERM: using a little more of the grace period avoids a half-published run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
