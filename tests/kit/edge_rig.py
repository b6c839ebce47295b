"""A device, a gateway that may lie, and bundles that are really built, without the measuring."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from onnx import helper

from fourways_agent.state import DeviceSettings, Store
from fourways_runtime import bundle_layout as layout
from fourways_runtime.workloads.edge import build as building
from fourways_runtime.workloads.edge.judge import MIB, Measured
from tests.kit.edge_plane import built_and_signed, edge_config, key_pair, published
from tools.kit.models import FLOAT, LINEAR, onnx_bytes

RECORD = {"age": 30, "spend": 2, "rate": 1}


def model(version: int, padding: int = 2**16) -> bytes:
    """Answer ``version`` times the age; ``padding`` makes the file as large as a model."""
    weights = np.array([[version], [0], [0]], np.float32)
    random = np.random.default_rng(version)
    idle = random.normal(0, 1, (padding // 4, 1)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        # Nothing that optimisation could leave out: the padding times zero is added.
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Mul", ["s", "zero"], ["z"]),
        helper.make_node("Mul", ["idle", "z"], ["iz"]),
        helper.make_node("ReduceSum", ["iz"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["m", "nothing"], ["y"]),
    ]
    return onnx_bytes(
        nodes,
        [("x", FLOAT, ["N", 3])],
        [("y", FLOAT, ["N", 1])],
        [("w", weights), ("idle", idle), ("zero", np.array(0, np.float32))],
    )


def golden(version: int) -> list[dict[str, Any]]:
    return [
        {"inputs": RECORD | {"age": age}, "outputs": {"score": float(version * age)}}
        for age in (30, 60)
    ]


@contextmanager
def unmeasured() -> Iterator[None]:
    """Let builds take any variant: measuring has its own tests, and takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "measured", lambda *files, **more: Measured(1, 1, 1, MIB, 1.0, 2))
        yield


class Publisher:
    """Builds versions of one deployment into one folder, each release later than the last."""

    def __init__(self, root: Path, padding: int = 2**16) -> None:
        self.root = root
        self.padding = padding
        self.now = 1000.0

    @property
    def folder(self) -> Path:
        return published(self.root)

    def publish(self, version: int, **more: Any) -> str:
        """Publish a version; return its digest."""
        self.now += 1
        config = edge_config(
            self.root,
            more.pop("raw", None) or model(version, self.padding),
            LINEAR,
            more.pop("golden", None) or golden(version),
            version=f"v{version}",
            **more,
        )
        with unmeasured():
            return built_and_signed(config, lambda: self.now).bundles[0].digest

    def index(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / layout.INDEX_FILE).read_bytes())
        return found

    def digests(self) -> dict[str, str]:
        """Return what is published: name to digest, of manifests and files."""
        told = layout.read_index((self.folder / layout.INDEX_FILE).read_bytes())
        found = {"manifest": told.model.digest, "signature manifest": told.signature.digest}
        raw = self.blob(told.model.digest).read_bytes()
        found |= {name: it.digest for name, it in layout.read_model_manifest(raw).items()}
        about = self.blob(told.signature.digest).read_bytes()
        bundle, release = layout.read_signature_manifest(about, told.model.digest)
        return found | {"signature": bundle.digest, "release": release.digest}

    def blob(self, digest: str) -> Path:
        return self.folder / layout.blob_name(digest)


Answer = bytes | Callable[[Any], None] | None


class Gateway:
    """Serves a publisher's folder, with ranges; ``lies`` replace what is at a path."""

    def __init__(self, publisher: Publisher) -> None:
        self.lies: dict[str, Answer] = {}
        self.features: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str | None]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                gateway.asked.append((url.path, self.headers.get("Range")))
                if url.path.startswith("/features/churn/"):
                    self._features(unquote(url.path.rpartition("/")[2]), url.query)
                    return
                name = url.path.removeprefix("/bundles/churn/door/")
                file = publisher.folder / name
                found: Answer = file.read_bytes() if file.is_file() else None
                found = gateway.lies.get(name, found)
                if found is None:
                    self._send(404, b"no such path")
                elif isinstance(found, bytes):
                    self._send_range(found)
                else:
                    found(self)

            def _features(self, key: str, query: str) -> None:
                if key not in gateway.features:
                    self._send(404, b'{"key": "unknown"}')
                    return
                names = parse_qs(query)["inputs"][0].split(",")
                known = gateway.features[key]
                told = {name: known[name] for name in names if name in known}
                self._send(200, json.dumps({"key": key, "features": told}).encode())

            def _send_range(self, body: bytes) -> None:
                wanted = self.headers.get("Range")
                if wanted is None:
                    self._send(200, body)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                told = f"bytes {start}-{len(body) - 1}/{len(body)}"
                self._send(206, body[start:], told)

            def _send(self, status: int, body: bytes, content_range: str | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if content_range is not None:
                    self.send_header("Content-Range", content_range)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a device that has seen enough hangs up

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def gateway_of(publisher: Publisher) -> Iterator[Gateway]:
    gateway = Gateway(publisher)
    try:
        yield gateway
    finally:
        gateway.close()


def cut_off(raw: bytes) -> Callable[[Any], None]:
    """Return an answer that promises all of ``raw`` and hangs up after half of it."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw[: len(raw) // 2])
        handler.close_connection = True

    return answer


def device(root: Path, gateway: Gateway, name: str = "device") -> tuple[Store, DeviceSettings]:
    """Return the state folder of a new device, and what it is told."""
    key = root / "signing-key.pub.pem"
    key.write_bytes(key_pair()[1])
    store = Store(root / name)
    settings = DeviceSettings(gateway.url, "churn", "door", str(key))
    store.prepare()
    store.remember(settings)
    return store, settings
