"""HTTP servers that misbehave, on loopback. Each answer is a function of the request's handler."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """Answers in turn; the last one again and again."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of each request so far, with its path under ``:path``."""


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    server = Server(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append(
                {**{k.lower(): v for k, v in self.headers.items()}, ":path": self.path}
            )
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            self.close_connection = True
            with suppress(OSError):
                answer(self)

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.block_on_close = False
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def whole(body: bytes, **headers: str) -> Answer:
    """The body, ranges unknown."""
    return status(200, body, **headers)


def ranged(body: bytes, etag: str | None = '"v1"', *, heed_if_range: bool = True) -> Answer:
    """The body or the part asked for, as a good server answers; or one deaf to If-Range."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        tag = {"ETag": etag} if etag else {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        wanted = handler.headers.get("If-Range")
        if not asked or (heed_if_range and wanted not in (None, etag)):
            return status(200, body, **tag)(handler)
        start = int(asked[1])
        end = min(int(asked[2]) + 1 if asked[2] else len(body), len(body))
        if start >= len(body):
            return status(416, b"", **tag)(handler)
        content_range = f"bytes {start}-{end - 1}/{len(body)}"
        return status(206, body[start:end], Content_Range=content_range, **tag)(handler)

    return answer


def broken(body: bytes, after: int, etag: str | None = '"v1"') -> Answer:
    """The whole body is promised; the connection breaks after some of it."""
    tag = {"ETag": etag} if etag else {}
    return lambda handler: status(200, body[:after], Content_Length=str(len(body)), **tag)(handler)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """A chunked body without an end."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
    while True:
        handler.wfile.write(chunk)


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """A body that comes a byte at a time, for as long as anybody listens."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.01)


def dripping_header(handler: BaseHTTPRequestHandler) -> None:
    """A header that comes a byte at a time."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.01)


def silent(handler: BaseHTTPRequestHandler) -> None:
    """No answer for a while longer than any test waits."""
    time.sleep(2)


def redirect(to: str, code: int = 302) -> Answer:
    return status(code, b"", Location=to)
