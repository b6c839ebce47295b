"""Chromium without a window, which tests look at pages with.

Every name under ``example`` leads to this machine, as a stranger's DNS would have it: a page of
``http://evil.example:PORT`` is another site's, and ``rebind.example`` is a name that was rebound to
this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tools.cluster.errors import ClusterError
from tools.servers.chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ARGUMENTS = (
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    # It runs as root here, in a container, and opens our own pages only.
    "--no-sandbox",
    "--disable-dev-shm-usage",
)


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a browser; skip the test, and say why, where there is none.

    Playwright keeps an event loop in its thread: a module that uses this has no asynchronous tests.
    """
    try:
        program = chromium()
    except ClusterError as error:
        pytest.skip(f"no Chromium here: {error}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(program), args=list(ARGUMENTS))
        try:
            yield opened
        finally:
            opened.close()


class _Pages(ThreadingHTTPServer):
    page = b""


class _Page(BaseHTTPRequestHandler):
    server: _Pages

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def pages_of(page: str) -> Iterator[int]:
    """Answer every path with a page, under whatever name one asks; yields the port."""
    server = _Pages(("127.0.0.1", 0), _Page)
    server.page = page.encode()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
