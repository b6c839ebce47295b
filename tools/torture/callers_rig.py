"""What the torture of callers asks: the examples of all modes, and a gateway that knows callers.

``fourways up`` runs the examples. A second gateway with the configuration of its own gateway
listens beside it, on plain HTTP and on TLS, and accepts tokens of an issuer as well.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fourways_api import GatewayConfig
from fourways_api.audience import DEPLOYMENTS_KEY
from fourways_api.callers import CallerPolicy, TokenIssuer
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded.control import HostNotRunning, ask
from fourways_cli.embedded.ports import free_port
from fourways_runtime.callers.api_keys import new_key
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES, SHOP_SECRET, shown

PATIENCE_SECONDS = 120.0
ANSWER_SECONDS = 30.0


class NotServing(RuntimeError):
    """The examples or the gateway did not become ready; the text says what was seen last."""


class KeyFolder:
    """API keys as the kubelet mounts them, and every key that was ever made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, *scopes: str, **more: Any) -> str:
        """Make a key for a caller; return it. A second one replaces the first."""
        key, digest = new_key(name)
        part = self.folder / f".{name}"
        part.write_text(json.dumps({"sha256": [digest], "scopes": scopes, **more}))
        part.rename(self.folder / name)
        return key

    def remove(self, name: str) -> None:
        """Revoke a caller's keys."""
        (self.folder / name).unlink()


@dataclass(frozen=True, slots=True)
class Served:
    """Where the gateway answers, and where everything it writes is."""

    port: int
    tls_port: int
    tls: ssl.SSLContext
    state: Path
    logs: tuple[Path, ...]
    pid: int

    def connect(self, encrypted: bool = False) -> socket.socket:
        """Return a connection to the gateway."""
        port = self.tls_port if encrypted else self.port
        plain = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(plain, server_hostname="localhost") if encrypted else plain

    def ask(
        self, method: str, path: str, key: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send a request with valid credentials; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        sent = {"Authorization": f"Bearer {key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextmanager
def served(folder: Path, keys: KeyFolder, issuer: TokenIssuer) -> Iterator[Served]:
    """Run the examples and a gateway that asks who is there, until the context is left.

    Raises NotServing.
    """
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True, stdout=subprocess.DEVNULL)
    shop = shutil.copytree(EXAMPLES / "secrets" / SHOP_SECRET, folder / "shop")
    (shop / DEPLOYMENTS_KEY).write_text("*")
    state, log = folder / "state", folder / "gateway.log"
    # fmt: off
    command = [
        sys.executable, "-m", "fourways_cli", "up", *map(str, shown()),
        "--state", str(state), "--port", str(free_port()), "--keys", str(keys.folder),
        "--volume", f"{CLAIM}={ARTIFACTS}", "--secret", f"{SHOP_SECRET}={shop}",
    ]
    # fmt: on
    with _process(command, dict(os.environ), folder / "up.log") as host:
        _await(lambda: _all_ready(state), host, "the examples")
        config = _with_callers(_config_of_gateway(host.pid), folder, keys, issuer)
        environment = {**os.environ, CONFIG_VARIABLE: config.model_dump_json(by_alias=True)}
        started = [sys.executable, "-P", "-m", "fourways_runtime", "gateway"]
        with _process(started, environment, log) as gateway:
            tls = ssl.create_default_context(cafile=str(folder / "tls" / "tls.crt"))
            logs = (log, folder / "up.log")
            found = Served(config.port, config.tls_port, tls, state, logs, gateway.pid)
            _await(lambda: _answers(found), gateway, "the gateway")
            yield found


@contextmanager
def _process(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.1)
    raise NotServing(f"{what} did not become ready (exit code {process.poll()})")


def _all_ready(state: Path) -> bool:
    try:
        documents = ask(state, {"do": "status"})["deployments"]
    except HostNotRunning:
        return False
    said = [{c["type"]: c["status"] for c in d["status"]["conditions"]} for d in documents]
    return bool(said) and all(one["Ready"] == "True" for one in said)


def _answers(found: Served) -> bool:
    try:
        return found.ask("GET", "/v2/health/ready", "")[0] == 200
    except OSError:
        return False


def _config_of_gateway(host: int) -> GatewayConfig:
    """Return the configuration of the gateway among a host's children."""
    children = Path(f"/proc/{host}/task/{host}/children").read_text().split()
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"fourways_runtime" in words and b"gateway" in words:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            told = dict(one.split(b"=", 1) for one in variables if b"=" in one)
            return GatewayConfig.model_validate_json(told[CONFIG_VARIABLE.encode()])
    raise NotServing("the host has no gateway")


def _with_callers(
    config: GatewayConfig, folder: Path, keys: KeyFolder, issuer: TokenIssuer
) -> GatewayConfig:
    make_certificate(folder / "tls")
    more = {
        "port": free_port(),
        "tls_port": free_port(),
        "tls_dir": str(folder / "tls"),
        "callers": CallerPolicy(keys_dir=str(keys.folder), issuers=(issuer,)),
    }
    return config.model_copy(update=more)


def make_certificate(folder: Path) -> None:
    """Write a certificate for ``localhost`` with its key, as cert-manager mounts them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
