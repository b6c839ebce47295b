"""A model server with a certificate behind a gateway that verifies it, both processes."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from fourways_api import GatewayConfig, Paths, Route
from fourways_api.runtime_config import ServerConfig
from fourways_cli.embedded.ports import free_port
from fourways_runtime.callers.server_identity import LOOK_SECONDS
from tests.kit.certificates import TestAuthority, mount
from tests.kit.waiting import until
from tools.kit.models import LINEAR, linear

pytestmark = pytest.mark.embedded

INPUTS = [
    {"name": "age", "datatype": "INT32", "shape": [1], "data": [40]},
    {"name": "spend", "datatype": "FP32", "shape": [1], "data": [1.5]},
    {"name": "rate", "datatype": "FP32", "shape": [1], "data": [8.0]},
]
INFER = "/v2/models/score/infer"
BURST = 24
"""More requests at a time than the gateway has connections: it opens new ones."""


class Plane:
    """A model server with a certificate for ``localhost``, and a gateway."""

    def __init__(self, folder: Path, started: ExitStack) -> None:
        self.folder, self.started = folder, started
        self.tls, self.ca = folder / "tls", folder / "ca"
        (folder / "model.onnx").write_bytes(linear())
        self.plain_port, self.tls_port, port = free_port(), free_port(), free_port()
        self.plain_url = f"http://127.0.0.1:{self.plain_port}"
        self.url = f"http://127.0.0.1:{port}"
        self.paths = Paths(
            store_uri_file=str(folder / "store-secret" / "uri"),
            cache_dir=str(folder / "cache"),
            termination_log=str(folder / "words"),
        )
        self.port = port

    def start_gateway(self) -> None:
        route = Route(
            deployment="score",
            mode="realtime",
            version="1",
            url=f"https://localhost:{self.tls_port}",
            timeout_seconds=5,
        )
        config = GatewayConfig(
            namespace="shop",
            host="127.0.0.1",
            port=self.port,
            routes=(route,),
            paths=self.paths,
            servers_ca=str(self.ca / "ca.crt"),
        )
        self.gateway = self.start("gateway", config.model_dump_json(by_alias=True))
        ready(self.url, "/v2/health/live")

    def start_server(self) -> None:
        config = ServerConfig.model_validate(
            {
                "namespace": "shop",
                "name": "score",
                "model": {
                    "uri": (self.folder / "model.onnx").as_uri(),
                    "format": "onnx",
                    "version": "1",
                },
                "contract": LINEAR,
                "host": "127.0.0.1",
                "port": self.plain_port,
                "timeout_seconds": 5,
                "paths": self.paths.to_json(),
                "tls": {
                    "secret": "servers",
                    "folder": str(self.tls),
                    "authoritySecret": "servers",
                    "authorityFile": str(self.ca / "ca.crt"),
                    "host": "localhost",
                    "port": self.tls_port,
                },
            }
        )
        self.server = self.start("serve", config.model_dump_json(by_alias=True))

    def start(self, mode: str, config: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{mode}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fourways_runtime", mode],
                env={**os.environ, "FOURWAYS_CONFIG": config},
                stderr=log,
            )
        self.started.callback(process.wait)
        self.started.callback(process.kill)
        return process

    def presented(self) -> bytes:
        """Return the certificate that the model server shows to new connections."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address = "127.0.0.1", self.tls_port
        with socket.create_connection(address, 10) as raw, context.wrap_socket(raw) as tls:
            found = tls.getpeercert(binary_form=True)
        assert found is not None
        return found

    def faults(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = httpx.get(f"{self.plain_url}/faults").json()["faults"]
        return found

    def renew(self, data: dict[str, bytes]) -> None:
        """Replace the server's certificate, and await that it is shown."""
        mount({k: data[k] for k in ("tls.crt", "tls.key")}, self.tls)
        shown = ssl.PEM_cert_to_DER_cert(data["tls.crt"].decode())
        until(lambda: self.presented() == shown, "the renewed certificate is shown")


def ready(url: str, path: str) -> None:
    until(
        lambda: httpx.get(f"{url}{path}").is_success,
        f"{url}{path} answers",
        seconds=30,
        ignoring=httpx.HTTPError,
    )


@contextmanager
def running(folder: Path, data: dict[str, bytes]) -> Iterator[Plane]:
    with ExitStack() as started:
        plane = Plane(folder, started)
        mount({k: v for k, v in data.items() if k != "ca.crt"}, plane.tls)
        mount({"ca.crt": data["ca.crt"]}, plane.ca)
        plane.start_server()
        plane.start_gateway()
        yield plane


def burst(client: httpx.Client, url: str, clients: ThreadPoolExecutor) -> list[int]:
    def one(_: int) -> int:
        return client.post(f"{url}{INFER}", json={"inputs": INPUTS}).status_code

    return list(clients.map(one, range(4 * BURST)))


def test_certificate_and_authority_are_renewed_under_load(tmp_path: Path) -> None:
    old, new = TestAuthority("old"), TestAuthority("new")
    limits = httpx.Limits(max_connections=BURST)
    with (
        running(tmp_path, old.issue("localhost")) as plane,
        httpx.Client(timeout=20, limits=limits) as client,
        ThreadPoolExecutor(BURST) as clients,
    ):
        ready(plane.url, "/v2/models/score/ready")
        statuses = burst(client, plane.url, clients)
        # A renewed certificate of the same authority.
        plane.renew(old.issue("localhost"))
        statuses += burst(client, plane.url, clients)
        # Another authority: it is trusted beside the old one, then it issues, then it is alone.
        mount({"ca.crt": old.pem + new.pem}, plane.ca)
        renewed = new.issue("localhost")
        statuses += burst(client, plane.url, clients)
        until(lambda: gateway_has_looked(plane), "the gateway has read both authorities")
        plane.renew(renewed)
        statuses += burst(client, plane.url, clients)
        mount({"ca.crt": new.pem}, plane.ca)
        statuses += burst(client, plane.url, clients)
        assert statuses == [200] * len(statuses)
        assert plane.faults() == []
        log = (tmp_path / "gateway.log").read_text("utf-8")
        assert "does not respond" not in log


def gateway_has_looked(plane: Plane) -> bool:
    """Tell whether the time has passed after which the gateway reads its authority again."""
    return time.time() - (plane.ca / "ca.crt").stat().st_mtime > LOOK_SECONDS + 1


def test_without_encryption_there_are_no_predictions(tmp_path: Path) -> None:
    with running(tmp_path, TestAuthority().issue("localhost")) as plane:
        ready(plane.url, "/v2/models/score/ready")
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics", "/faults"):
            assert httpx.get(f"{plane.plain_url}{path}").status_code == 200
        asked = httpx.post(f"{plane.plain_url}{INFER}", json={"inputs": INPUTS})
        assert asked.status_code == 404
        for path in ("/v2/models/score", "/v2", "/v1/models", "/v2/models/score/openapi.json"):
            assert httpx.get(f"{plane.plain_url}{path}").status_code == 404
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{plane.tls_port}/v2/health/live")
        plane.server.terminate()
        assert plane.server.wait(20) == 0


def test_a_certificate_that_is_not_accepted_is_a_fault_until_it_is_renewed(
    tmp_path: Path,
) -> None:
    authority = TestAuthority()
    with running(tmp_path, authority.issue("localhost", days=-1)) as plane:
        ready(plane.plain_url, "/v2/health/ready")
        answer = httpx.post(f"{plane.url}{INFER}", json={"inputs": INPUTS}, timeout=20)
        assert answer.status_code == 503
        assert "certificate" not in answer.text, "callers are not told about the network"
        (fault,) = plane.faults()
        assert fault["reason"] == "CertificateInvalid"
        assert fault["message"].startswith(
            "Secret servers: gateways do not accept the certificate for localhost "
            "(certificate has expired)"
        )
        assert "certificate has expired" in (tmp_path / "gateway.log").read_text("utf-8")
        plane.renew(authority.issue("localhost"))
        ready(plane.url, "/v2/models/score/ready")
        until(lambda: plane.faults() == [], "the fault has gone")


def test_without_a_certificate_the_last_words_say_what_is_missing(tmp_path: Path) -> None:
    with ExitStack() as started:
        plane = Plane(tmp_path, started)
        plane.start_server()
        assert plane.server.wait(60) == 75
        words = json.loads((tmp_path / "words").read_text("utf-8"))
        assert words["reason"] == "CertificateInvalid"
        assert "it needs tls.crt and tls.key" in words["message"]
        assert "Secret servers" in words["message"]
