"""Starting the local cluster's daemons, and finding and ending everything that belongs to it.

A process is ended by its own id, and only after /proc has shown that it is ours, because ids are
reused after a crash or a reboot, and the machine has other users. A process is ours if it is in the
cluster's cgroup (a pod's), or if it is outside our own network namespace and its command line names
the state folder (a daemon or containerd's shim, but not a `tail` of a log).
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tools.cluster.config import Checkout
from tools.cluster.errors import ClusterError
from tools.cluster.network import enter

_PROC = Path("/proc")
# A clean environment: daemons must behave the same whoever starts them, and containerd passes
# its environment to every shim.
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
_GOING_SECONDS = 20.0
_BECOMING_SECONDS = 1.0


def start(checkout: Checkout, name: str, command: Sequence[str | Path]) -> None:
    """Start a daemon inside the cluster's network namespace, with its own log and id file."""
    with (checkout.log_dir / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*enter(checkout), *(str(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_ENV,
            cwd="/",
            start_new_session=True,
        )
    (checkout.run_dir / f"{name}.pid").write_text(f"{process.pid}\n", encoding="utf-8")


def alive(checkout: Checkout, name: str) -> bool:
    """Whether the daemon's id file names a process of ours; False for a stale file."""
    try:
        pid = int((checkout.run_dir / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return False
    return _is_ours(checkout, pid)


def all_of(checkout: Checkout) -> list[int]:
    """Ids of all processes of this cluster: daemons, shims and pods."""
    return [pid for pid in _pids() if _is_ours(checkout, pid)]


def end(checkout: Checkout, first: Sequence[str]) -> None:
    """End everything; the daemons in `first` go first, because they would restart the others."""
    for name in first:
        if alive(checkout, name):
            _kill(int((checkout.run_dir / f"{name}.pid").read_text()))
    deadline = time.monotonic() + _GOING_SECONDS
    while pids := all_of(checkout):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {pids} do not end: see /proc/PID/stack")
        for pid in pids:
            _kill(pid)
        time.sleep(0.05)


def _kill(pid: int) -> None:
    # Not TERM: the state folder is deleted anyway, and graceful shutdown only takes longer.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _pids() -> Iterator[int]:
    for entry in os.listdir(_PROC):
        if entry.isdigit() and int(entry) != os.getpid():
            yield int(entry)


def _is_ours(checkout: Checkout, pid: int) -> bool:
    place = _PROC / str(pid)
    try:
        command = _command_line(place)
        if f"/{checkout.netns}/".encode() in (place / "cgroup").read_bytes():
            return True
        elsewhere = (place / "ns/net").stat().st_ino != (_PROC / "self/ns/net").stat().st_ino
    except OSError:
        return False
    return f"{checkout.state}/".encode() in command and (
        elsewhere or command.startswith(b"nsenter")
    )


def _command_line(place: Path) -> bytes:
    """The command line of a process; OSError for zombies and kernel threads.

    These have no program. A process that is about to execute another program has one, and for a
    moment no command line: nsenter, before it executes the daemon.
    """
    deadline = time.monotonic() + _BECOMING_SECONDS
    while not (command := (place / "cmdline").read_bytes()):
        (place / "exe").readlink()
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    return command
