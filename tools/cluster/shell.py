"""Running other programs, timing steps and taking locks.

Every subprocess of this package goes through `run`, so that a failure is one line with the end of
the program's output, and no program waits for a terminal.
"""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.cluster.errors import ClusterError, CommandFailed

_TAIL_LINES = 12


def run(
    command: Sequence[str | Path],
    *,
    input_text: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run `command` to its end and return its stdout; raise CommandFailed if it fails."""
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments,
            input=input_text,
            stdin=subprocess.DEVNULL if input_text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"{arguments[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(arguments[:3])} took longer than {timeout} s") from error
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        raise CommandFailed(f"{' '.join(arguments[:3])} failed ({done.returncode}): {tail}")
    return done.stdout


def succeeds(command: Sequence[str | Path], *, timeout: float = 30) -> bool:
    """Whether `command` exits with 0; False if the program is missing or hangs."""
    try:
        run(command, timeout=timeout)
    except CommandFailed:
        return False
    return True


def wait_for(
    what: str,
    ready: Callable[[], bool],
    *,
    seconds: float,
    hint: str = "",
    alive: Callable[[], None] | None = None,
) -> None:
    """Poll `ready` until it is true; `alive` may raise early if waiting longer is pointless."""
    deadline = time.monotonic() + seconds
    while not ready():
        if alive is not None:
            alive()
        if time.monotonic() > deadline:
            see = f"; see {hint}" if hint else ""
            raise ClusterError(f"{what} not ready after {seconds:.0f} s{see}")
        time.sleep(0.15)


def say(text: str) -> None:
    """Report progress to the user on stderr; stdout is reserved for results, which scripts read."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Time a step and report the duration."""
    started = time.monotonic()
    yield
    say(f"{time.monotonic() - started:7.1f} s  {name}")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for its holder; the kernel releases it on a
    crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {path}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
