"""A device shows its API key to the gateway, for bundles and for features."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fourways_agent.errors import GatewayUnreachable
from fourways_agent.main import main
from fourways_agent.remote import Remote
from fourways_agent.state import DeviceSettings


class Door:
    """A gateway that answers only whom it knows."""

    known = "Bearer fwk_door_1"

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_known = self.headers.get("Authorization") == outer.known
                self.send_response(200 if is_known else 401)
                self.end_headers()
                self.wfile.write(b"index" if is_known else b"{}")

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    thread = threading.Thread(target=door.server.serve_forever, args=(0.01,))
    thread.start()
    yield door
    door.server.shutdown()
    thread.join()
    door.server.server_close()


def settings(door: Door, file: Path | str) -> DeviceSettings:
    return DeviceSettings(door.url, "door", "small", "key.pem", api_key_file=str(file))


def test_a_known_device_is_answered_and_a_new_key_is_taken_up(door: Door, tmp_path: Path) -> None:
    file = tmp_path / "api-key"
    file.write_text("fwk_door_1\n")
    told = settings(door, file)
    remote = Remote(told.gateway, told.deployment, told.target, told.credentials)
    assert remote.document("index.json", 100) == b"index"
    door.known = "Bearer fwk_door_2"
    with pytest.raises(GatewayUnreachable, match="--api-key-file"):
        remote.document("index.json", 100)
    file.write_text("fwk_door_2")
    assert remote.document("index.json", 100) == b"index"


def test_without_a_key_the_refusal_says_what_to_do(door: Door) -> None:
    told = settings(door, "")
    assert told.credentials() == {}
    remote = Remote(told.gateway, told.deployment, told.target, told.credentials)
    with pytest.raises(GatewayUnreachable, match="refuses this device"):
        remote.document("index.json", 100)


def test_a_missing_key_file_is_named(
    door: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--gateway", door.url, "--deployment", "door", "--target", "small"]
    options += ["--key", __file__, "--api-key-file", str(tmp_path / "none")]
    assert main(["update", "--state", str(tmp_path / "state"), *options]) == 2
    assert "--api-key-file" in capsys.readouterr().err
