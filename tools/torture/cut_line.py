"""A line to PostgreSQL that can be cut after a commit and before its reply."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from tools.servers.postgres import Server

_CHUNK = 65536


class CutLine:
    """A unix socket that relays to a server; :meth:`cut` drops the next reply and hangs up.

    What the reply answers has been done by then. Later connections are relayed as before.
    """

    def __init__(self, server: Server) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fourways-cut-", dir="/tmp"))
        self.was_cut = threading.Event()
        self._armed = threading.Event()
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def uri(self, database: str) -> str:
        """Return a database's URI, over this line."""
        return database.replace(str(self._server.folder), str(self.folder))

    def cut(self) -> None:
        """Drop the next reply, on whichever connection it comes."""
        self.was_cut.clear()
        self._armed.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server.folder / ".s.PGSQL.5432"))
            except OSError:
                client.close()
                server.close()
                continue
            for source, target, replies in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._relay, args=(source, target, replies), daemon=True
                ).start()

    def _relay(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if replies and self._armed.is_set():
                    self._armed.clear()
                    self.was_cut.set()
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
