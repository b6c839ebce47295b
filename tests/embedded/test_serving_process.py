"""The model server as a process: what it says while it loads, how it fails, how it drains."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from fourways_api.runtime_config import ServerConfig
from fourways_cli.embedded.ports import free_port
from fourways_runtime.errors import GoldenMismatch, Unavailable
from fourways_runtime.workloads.serving.loading import load_model
from fourways_runtime.workloads.serving.shell import serve
from tests.kit.drain import drained as asked_until_drained
from tests.kit.server_process import Process, started
from tests.kit.serving_plane import NO_TLS, configure, tensor
from tools.kit.models import LINEAR, linear

RECORD = [
    tensor("age", "INT32", [30]),
    tensor("spend", "FP32", [2]),
    tensor("rate", "FP32", [1]),
]

pytestmark = pytest.mark.embedded


def configured(root: Path, **more: Any) -> ServerConfig:
    return configure(root, linear(), LINEAR, port=free_port(), **more)


def drained(running: Process) -> list[str]:
    return asked_until_drained(
        running.process,
        running.url,
        lambda client: client.post("/v2/models/churn/infer", json={"inputs": RECORD}),
        lambda answer: (
            answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [11.125]
        ),
        after=50,
    )


def test_lives_at_once_is_ready_when_it_answers_and_drains_without_failing_a_request(
    tmp_path: Path,
) -> None:
    golden = {"inputs": {"age": 30, "spend": 2, "rate": 1}, "outputs": {"score": 11.125}}
    asked, let_go = threading.Event(), threading.Event()
    bodies = {"/model.onnx": linear(), "/golden.jsonl": json.dumps(golden).encode()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            assert let_go.wait(20)
            body = bodies[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    store = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{store.server_port}"
    digests = {path: f"sha256:{hashlib.sha256(body).hexdigest()}" for path, body in bodies.items()}
    vectors = {"uri": f"{base}/golden.jsonl", "digest": digests["/golden.jsonl"]}
    config = configured(
        tmp_path,
        model={
            "uri": f"{base}/model.onnx",
            "version": "v1",
            "digest": digests["/model.onnx"],
        },
        contract={**LINEAR, "goldenVectors": vectors},
        fetch={"hosts": ["127.0.0.1"]},
    )
    with (
        started(tmp_path, config) as running,
        httpx.Client(base_url=running.url, verify=NO_TLS) as client,
    ):
        running.until("listening")
        assert asked.wait(20), running.log
        assert client.get("/v2/health/live").status_code == 200
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "the model is loading")
        assert client.get("/v2/models/churn/ready").status_code == 503
        assert client.get("/v2/models/churn").json()["versions"] == ["v1"]
        early = client.post("/v2/models/churn/infer", json={"inputs": RECORD})
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        assert "fourways_model_ready 0.0" in client.get("/metrics").text
        let_go.set()
        running.until("serving")
        assert "golden vectors agree" in [line["message"] for line in running.log]
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/churn/ready").status_code == 200
        assert "fourways_model_ready 1.0" in client.get("/metrics").text
        client.close()
        assert drained(running) == []
        assert running.end() == 0
        assert running.log[-1]["all_answered"] is True
    store.shutdown()


def test_sigterm_while_loading_ends_at_once(tmp_path: Path) -> None:
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/model.onnx"
        model = {"uri": uri, "version": "v1", "digest": "sha256:" + "a" * 64}
        config = configured(tmp_path, model=model, fetch={"hosts": ["127.0.0.1"]})
        with started(tmp_path, config) as running:
            running.until("listening")
            running.process.send_signal(signal.SIGTERM)
            assert running.end() == 0
    # The file may be open for the stacks of a hang, and is empty then.
    last_words = tmp_path / "last-words"
    assert not last_words.exists() or not last_words.read_text()


def test_a_model_of_another_digest(tmp_path: Path) -> None:
    other = "sha256:" + "b" * 64
    with started(tmp_path, configured(tmp_path, digest=other)) as running:
        assert running.end() == 3
        words = running.last_words()
        assert (words.outcome, words.reason) == ("Failed", "DigestMismatch")
        assert other in words.message
        assert (words.digest, words.version) == (other, "v1")


def test_golden_vectors_that_come_out_differently(tmp_path: Path) -> None:
    vectors = {"uri": "pvc://data/golden.jsonl"}
    config = configured(tmp_path, contract={**LINEAR, "goldenVectors": vectors})
    golden = {"inputs": {"age": 30, "spend": 2, "rate": 1}, "outputs": {"score": 12}}
    (tmp_path / "volumes/data/golden.jsonl").write_text(json.dumps(golden))
    with pytest.raises(GoldenMismatch, match=r"expected 12, got 11\.125"):
        load_model(config)


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = configured(tmp_path).model_copy(update={"port": port})
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            await serve(config)
