"""What a way is, and how it is judged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fourways_api.audience import DEPLOYMENTS_KEY, HOSTS_KEY

AIMS = ("Secret", "claim", "host", "image", "ServiceAccount", "database row", "program")
CANARY = "CANARY-of-somebody-else"
"""Text of others' Secrets, files and rows. Where it comes out, something was reached."""


class Reached(Exception):
    """The way was not refused; the text says what it gave."""


@dataclass(frozen=True, slots=True)
class Way:
    """One try of an author."""

    aim: str
    """What it would reach: one of ``AIMS``."""

    name: str
    refusal: Callable[[Ground], str]
    """Tries it; returns the text of the refusal. Raises Reached."""

    says: str
    """What the refusal must say: the field, host, Secret or file."""


@dataclass(slots=True)
class Stranger:
    """A server that no Secret and no list of hosts names."""

    port: int
    asked: list[str] = field(default_factory=list)
    """Paths and credentials of the requests; anything here was reached."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where ways are tried: a folder of one's own, others' Secrets beside it, and a stranger."""

    folder: Path
    stranger: Stranger
    database: str = ""
    """Address of a database with others' rows; empty: there is no PostgreSQL here."""

    def secret(
        self, name: str, deployments: str = "*", hosts: str = "localhost 127.0.0.1", **keys: str
    ) -> Path:
        """Make a Secret's folder below ``secrets``, with its audience."""
        folder = self.folder / "secrets" / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in {DEPLOYMENTS_KEY: deployments, HOSTS_KEY: hosts, **keys}.items():
            (folder / key).write_text(value)
        return folder


def judge(way: Way, ground: Ground) -> str:
    """Try a way; return what is wrong, or an empty text if it was refused by name."""
    before = len(ground.stranger.asked)
    try:
        said = way.refusal(ground)
    except Reached as reached:
        return f"{way.aim}: {way.name}: it was not refused: {reached}"
    except Exception as error:  # noqa: BLE001  (the others are tried all the same)
        return f"{way.aim}: {way.name}: no refusal but {type(error).__name__}: {error}"
    if len(ground.stranger.asked) > before:
        return f"{way.aim}: {way.name}: the stranger was asked: {ground.stranger.asked[before:]}"
    if CANARY in said:
        return f"{way.aim}: {way.name}: the refusal quotes what it protects"
    if way.says not in said:
        return f"{way.aim}: {way.name}: the refusal does not say {way.says!r}: {said}"
    return ""


@contextmanager
def stranger() -> Iterator[Stranger]:
    """Run a server that answers everything, and notes what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(f"{self.path} {self.headers.get('Authorization', '')}")
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_HEAD = do_GET  # noqa: N815  (the name that http.server calls)

        def log_message(self, *_: object) -> None:
            """Say nothing: requests are noted."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Stranger(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
