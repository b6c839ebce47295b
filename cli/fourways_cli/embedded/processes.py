"""Child processes of the host, which end with it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

GRACE_SECONDS = 10.0

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@asynccontextmanager
async def worker(
    args: Sequence[str], environment: Mapping[str, str], log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``python -m fourways_runtime ARGS`` as a child."""
    command = [sys.executable, "-P", "-m", "fourways_runtime", *args]
    async with child(command, environment, log) as process:
        yield process


@asynccontextmanager
async def child(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program and append its output to ``log``.

    Leaving the context ends the process: SIGTERM, and SIGKILL after a grace period.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C reaches only the host, which ends its children in order.
            start_new_session=True,
            preexec_fn=_end_with_host,
        )
    try:
        yield process
    finally:
        await _end(process)


def _end_with_host() -> None:
    """Let the kernel end this child when the host is killed and cannot do so itself (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
