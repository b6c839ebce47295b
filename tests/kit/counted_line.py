"""A line to PostgreSQL that counts what is asked over it, and is cut at a chosen statement."""

from __future__ import annotations

import shutil
import socket
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from tools.servers.postgres import Server

_ASKS = b"QSc"
"""Messages a server answers: Query, Sync (the end of one with values) and CopyDone."""


class CountedLine:
    """A unix socket that relays to a server, and hangs up on everybody at the ``number``-th ask.

    Asks are counted from 1, once ``armed`` is set, whoever asks. ``forward`` says whether that one
    still reaches the server; either way its answer never reaches the client. Who connects
    afterwards is served.
    """

    def __init__(self, server: Server, number: int, *, forward: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fourways-line-", dir="/tmp"))
        self.armed = threading.Event()
        self.cut = threading.Event()
        self._server = server
        self._number = number
        self._forward = forward
        self._count = 0
        self._turn = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        self._hang_up()
        shutil.rmtree(self.folder, ignore_errors=True)

    def uri(self, database: str) -> str:
        """Return a database's URI, over this line."""
        return database.replace(str(self._server.folder), str(self.folder))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server.folder / ".s.PGSQL.5432"))
            with self._turn:
                self._open += [client, server]
            answered = threading.Event()
            muted = threading.Event()
            for relay in (self._ask, self._answer):
                threading.Thread(
                    target=relay, args=(client, server, muted, answered), daemon=True
                ).start()

    def _ask(
        self,
        client: socket.socket,
        server: socket.socket,
        muted: threading.Event,
        answered: threading.Event,
    ) -> None:
        with suppress(OSError, EOFError), client.makefile("rb") as asked:
            begun = False
            while True:
                # The first message has no type.
                kind = asked.read(1) if begun else b""
                raw = asked.read(4)
                if len(raw) < 4:
                    break
                (size,) = struct.unpack(">i", raw)
                message = kind + raw + asked.read(size - 4)
                begun = True
                if kind and kind in _ASKS and self._due():
                    if self._forward:
                        muted.set()
                        server.sendall(message)
                        answered.wait()
                    self.cut.set()
                    self._hang_up()
                    return
                server.sendall(message)
        _shut(client, server)

    def _due(self) -> bool:
        if not self.armed.is_set():
            return False
        with self._turn:
            self._count += 1
            return self._count == self._number

    def _answer(
        self,
        client: socket.socket,
        server: socket.socket,
        muted: threading.Event,
        answered: threading.Event,
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if muted.is_set():
                    # What was asked is done: a server answers after its commit.
                    answered.set()
                    return
                client.sendall(data)
        answered.set()
        _shut(client, server)

    def _hang_up(self) -> None:
        with self._turn:
            ends, self._open = self._open, []
        _shut(*ends)


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
