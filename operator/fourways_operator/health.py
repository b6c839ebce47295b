"""HTTP endpoints for the kubelet and Prometheus: ``/healthz``, ``/readyz``, ``/metrics``.

It owns a port and a thread. Two ages decide health, since a running process proves nothing: if all
watches have stopped, the last finished relist is too old; if the workers hang, the queue has not
moved for too long. It runs in its own thread, so that it still responds when the event loop is
stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

STUCK_SECONDS = 300.0
RELISTS_MISSED = 3


@dataclass(frozen=True, slots=True)
class Health:
    """The ages that decide health, in seconds; None before the first relist."""

    relist_age: Callable[[], float | None]
    started_ago: Callable[[], float]
    queue_stuck_for: Callable[[], float]
    resync_interval: float

    def live(self) -> tuple[bool, str]:
        """Tell whether the process should keep running, and if not, why."""
        limit = RELISTS_MISSED * self.resync_interval
        relisted = self.relist_age()
        age = self.started_ago() if relisted is None else relisted
        if age >= limit:
            return False, f"the last relist ended {age:.0f} s ago; the limit is {limit:.0f} s"
        if (stuck := self.queue_stuck_for()) >= STUCK_SECONDS:
            return False, f"the queue has not moved for {stuck:.0f} s"
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Tell whether the operator is doing its work, and if not, why."""
        if self.relist_age() is None:
            return False, "the first relist has not ended"
        return self.live()


def serve(port: int, health: Health, registry: CollectorRegistry) -> ThreadingHTTPServer:
    """Serve on a port (0 picks one) in a separate thread; stop it with ``shutdown``."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/healthz":
                    self._answer_health(*health.live())
                case "/readyz":
                    self._answer_health(*health.ready())
                case "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)
                case _:
                    self._answer(404, b"not found\n", "text/plain")

        def _answer_health(self, good: bool, words: str) -> None:
            self._answer(200 if good else 503, f"{words}\n".encode(), "text/plain")

        def _answer(self, code: int, body: bytes, content_type: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: probes come every few seconds."""

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
