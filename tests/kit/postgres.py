"""PostgreSQL servers for tests, and a line to one that can be cut at a chosen statement."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tools.servers.postgres import PostgresMissing, Server, running


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Run a server of the test's own; skip the test where this machine has no PostgreSQL."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except PostgresMissing as missing:
            pytest.skip(str(missing))
        yield server


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


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
