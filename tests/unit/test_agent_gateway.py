"""The gateway that a device asks: over TLS, from a pinned authority, unless told otherwise."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fourways_agent.errors import AgentConfigError, GatewayUnreachable
from fourways_agent.main import main
from fourways_agent.remote import Remote, check_address
from fourways_agent.state import DeviceSettings, Store
from tests.kit.edge_plane import key_pair


@pytest.mark.parametrize("gateway", ["http://gateway.example", "http://10.0.0.7:8080/x"])
def test_a_gateway_without_tls_needs_the_word(gateway: str) -> None:
    with pytest.raises(AgentConfigError, match="--insecure allows http"):
        check_address(gateway, insecure=False)
    check_address(gateway, insecure=True)


@pytest.mark.parametrize(
    "gateway",
    ["https://gateway.example", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080"],
)
def test_tls_and_this_machine_need_none(gateway: str) -> None:
    check_address(gateway, insecure=False)


def options(folder: Path, gateway: str, *more: str) -> list[str]:
    key = folder / "key.pem"
    key.write_bytes(key_pair()[1])
    told = ["--gateway", gateway, "--deployment", "churn", "--target", "door", "--key", str(key)]
    return ["update", "--state", str(folder / "device"), *told, *more]


def test_the_command_refuses_and_the_word_is_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = "http://192.0.2.1:9"
    assert main(options(tmp_path, gateway)) == 2
    assert "--insecure" in capsys.readouterr().err
    assert Store(tmp_path / "device").settings() is None
    # A device of an earlier version, which knows the address, goes on.
    store = Store(tmp_path / "device")
    store.prepare()
    store.remember(DeviceSettings("http://127.0.0.2:1", "churn", "door", str(tmp_path / "key.pem")))
    assert main(options(tmp_path, "http://127.0.0.2:1")) == 75


def test_a_deployment_or_target_that_the_gateway_lacks_is_told_with_what_to_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as empty:
        threading.Thread(target=empty.serve_forever, args=(0.02,), daemon=True).start()
        assert main(options(tmp_path, f"http://127.0.0.1:{empty.server_port}")) == 75
        empty.shutdown()
    assert "check --deployment, --namespace and --target" in capsys.readouterr().err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A gateway with a certificate of its own: its URL, and the certificate."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"index")

        def log_message(self, *arguments: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    listening.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    yield f"https://localhost:{listening.server_port}", certificate
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_only_a_server_of_the_pinned_authority_is_believed(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    url, certificate = server
    assert Remote(url, "churn", "door", ca_file=str(certificate)).document("x", 9) == b"index"
    with pytest.raises(GatewayUnreachable, match=r"self-signed.*check --ca-file and the clock"):
        Remote(url, "churn", "door").document("x", 9)
    other = Remote(url.replace("localhost", "127.0.0.1"), "churn", "door", ca_file=str(certificate))
    with pytest.raises(GatewayUnreachable, match="mismatch"):  # the authority of another name
        other.document("x", 9)


def test_why_a_gateway_cannot_be_reached_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        with pytest.raises(GatewayUnreachable, match="cannot be reached: connection refused"):
            Remote(f"http://127.0.0.1:{port}", "churn", "door").document("x", 9)


def test_a_file_without_certificates_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.pem").write_text("none")
    for file in ("none.pem", "absent.pem"):
        more = ("--ca-file", str(tmp_path / file))
        assert main(options(tmp_path, "https://gateway.example", *more)) == 2
        assert "--ca-file" in capsys.readouterr().err
