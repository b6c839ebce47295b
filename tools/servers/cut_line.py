"""A line to PostgreSQL that is cut at a chosen statement, before it or before its reply."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from .postgres import Server

_ASKS = b"QSc"
"""Messages that a server replies to: Query, Sync (the end of one with values) and CopyDone."""

_COPY_DATA = b"d"
_SOCKET = ".s.PGSQL.5432"


def at_words(words: bytes) -> Callable[[bytes], bool]:
    """Cut at the first statement that contains these words."""
    return lambda asked: words in asked


def at_number(number: int) -> Callable[[bytes], bool]:
    """Cut at the ``number``-th statement, counted from 1, on whichever connection it comes."""
    left = iter(range(number - 1, -1, -1))
    return lambda _: next(left, -1) == 0


@dataclass(slots=True, frozen=True)
class _Connection:
    client: socket.socket
    server: socket.socket
    muted: threading.Event = field(default_factory=threading.Event)
    """Replies no longer reach the client."""
    answered: threading.Event = field(default_factory=threading.Event)
    """The server has replied since then, or has gone."""

    def hang_up(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class CutLine:
    """A unix socket that relays to a server; once :meth:`arm` is called, it is cut one time.

    The cut comes at the first statement for which ``at`` returns True; it gets the bytes that the
    client sent for it, without data of COPY, and is called for one statement at a time.
    ``forward``: the statement still reaches the server, and is done when the cut comes: a server
    replies after its commit. Its reply never reaches the client. At the cut ``then`` is called,
    and every connection ends. Later connections are relayed as before.
    """

    def __init__(
        self,
        server: Server,
        at: Callable[[bytes], bool] = lambda asked: True,
        *,
        forward: bool = True,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fourways-cut-", dir="/tmp"))
        self.cut = threading.Event()
        """Set once the line has been cut since it was armed."""
        self._server = server
        self._at = at
        self._forward = forward
        self._then = then
        self._armed = False
        self._turn = threading.Lock()
        self._connections: list[_Connection] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / _SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # Closing alone would not end the accept.
        self._listener.close()
        self._hang_up()
        shutil.rmtree(self.folder, ignore_errors=True)

    def uri(self, database: str) -> str:
        """Return a database's URI, over this line."""
        return database.replace(str(self._server.folder), str(self.folder))

    def arm(self) -> None:
        """Let the cut come at the next statement that is chosen."""
        with self._turn:
            self.cut.clear()
            self._armed = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server.folder / _SOCKET))
            except OSError:
                client.close()
                server.close()
                continue
            connection = _Connection(client, server)
            with self._turn:
                self._connections.append(connection)
            for relay in (self._ask, self._reply):
                threading.Thread(target=relay, args=(connection,), daemon=True).start()

    def _ask(self, connection: _Connection) -> None:
        with suppress(OSError), connection.client.makefile("rb") as sent:
            # The first message has no type.
            connection.server.sendall(_message(sent, b""))
            asked = b""
            while kind := sent.read(1):
                message = _message(sent, kind)
                if kind != _COPY_DATA:
                    asked += message
                if kind in _ASKS:
                    if self._due(asked):
                        self._cut(connection, message)
                        return
                    asked = b""
                connection.server.sendall(message)
        connection.hang_up()

    def _due(self, asked: bytes) -> bool:
        with self._turn:
            due = self._armed and self._at(asked)
            self._armed = self._armed and not due
            return due

    def _cut(self, connection: _Connection, message: bytes) -> None:
        if self._forward:
            connection.muted.set()
            with suppress(OSError):
                connection.server.sendall(message)
                connection.answered.wait()
        self.cut.set()
        self._then()
        self._hang_up()

    def _reply(self, connection: _Connection) -> None:
        with suppress(OSError):
            while data := connection.server.recv(65536):
                if connection.muted.is_set():
                    break
                connection.client.sendall(data)
        connection.answered.set()
        if not connection.muted.is_set():
            connection.hang_up()

    def _hang_up(self) -> None:
        with self._turn:
            ended, self._connections = self._connections, []
        for connection in ended:
            connection.hang_up()


def _message(sent: BinaryIO, kind: bytes) -> bytes:
    """Read a message after its type: four bytes of its length, which they count, and the rest."""
    length = sent.read(4)
    rest = int.from_bytes(length) - len(length)
    body = sent.read(max(rest, 0))
    if len(length) < 4 or len(body) < rest:
        raise ConnectionResetError("the client has left within a message")
    return kind + length + body
