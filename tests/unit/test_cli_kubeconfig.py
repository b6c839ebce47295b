"""Commands use the cluster and the namespace of the kubeconfig, as kubectl does."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from fourways_cli import kubeconfig
from fourways_cli.main import app
from tests.kit.api_objects import kubeconfig_of
from tests.kit.cli import CliRunner


@dataclass
class ApiServer:
    """An API server that lists one deployment and refuses everything else."""

    port: int = 0
    asked: list[str] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                listed = self.path.endswith("/modeldeployments")
                body: Any = {"items": [{"metadata": {"name": "price", "namespace": "team"}}]}
                if not listed:
                    body = {"message": "[/x] \x1b[31m is forbidden"}
                text = json.dumps(body).encode()
                self.send_response(200 if listed else 403)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET  # noqa: N815  (named by the base class)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def api() -> Iterator[ApiServer]:
    made = ApiServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), made.handler()) as server:
        made.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def config(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = kubeconfig_of(api.port, tmp_path / "config", {"mine": "team", "plain": None})
    # Neither the machine's kubeconfig nor a host that runs here is to answer.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.setattr(kubeconfig, "_POD_NAMESPACE", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    return file


def fourways(*args: str) -> Result:
    return CliRunner().invoke(app, [*args])


LIST = "/apis/fourways.dev/v1alpha1"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ((), f"{LIST}/namespaces/team/modeldeployments"),
        (("--cluster",), f"{LIST}/namespaces/team/modeldeployments"),
        (("-n", "other"), f"{LIST}/namespaces/other/modeldeployments"),
        (("--context", "plain"), f"{LIST}/namespaces/default/modeldeployments"),
        (("--context", "mine"), f"{LIST}/namespaces/team/modeldeployments"),
        (("-A",), f"{LIST}/modeldeployments"),
    ],
)
def test_the_namespace_is_the_context_s(
    config: Path, api: ApiServer, options: tuple[str, ...], path: str
) -> None:
    done = fourways("status", *options)
    assert done.exit_code == 0, done.output
    assert "price" in done.stdout
    assert api.asked == [path]


def test_a_killed_host_s_socket_does_not_hide_the_cluster(
    config: Path, api: ApiServer, tmp_path: Path
) -> None:
    (tmp_path / ".fourways").mkdir()
    with socket.socket(socket.AF_UNIX) as host:
        host.bind(str(tmp_path / ".fourways" / "control"))
    assert fourways("status").exit_code == 0
    assert api.asked == [f"{LIST}/namespaces/team/modeldeployments"]


def test_a_kubeconfig_is_named(
    config: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/none")
    assert fourways("status").exit_code == 1
    assert fourways("status", "--kubeconfig", str(config)).exit_code == 0
    assert api.asked == [f"{LIST}/namespaces/team/modeldeployments"]


@pytest.mark.parametrize(
    "command", [("status",), ("list-runs", "m"), ("start-run", "m"), ("rejects", "m")]
)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--context", "nosuch"), "nosuch"),
        (("--kubeconfig", "/nowhere/config"), "/nowhere/config"),
    ],
)
def test_a_context_that_is_not_there_is_named(
    config: Path, command: tuple[str, ...], options: tuple[str, ...], words: str
) -> None:
    done = fourways(*command, *options)
    assert done.exit_code == 1
    assert words in done.stderr


def test_a_kubeconfig_that_the_environment_names_and_nobody_wrote_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere/config"
    )
    done = fourways("status")
    assert done.exit_code == 1
    assert "there is no kubeconfig /nowhere/config" in done.stderr


@pytest.mark.parametrize("text", ["a: [", "[]", "\x00", "- 1"])
def test_a_kubeconfig_that_is_none_is_no_traceback(config: Path, text: str) -> None:
    config.write_text(text)
    done = fourways("status")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), done.exception
    assert "no cluster can be reached" in done.stderr
    assert "start `fourways up FILE` here, or set KUBECONFIG" in done.stderr


def test_a_server_s_refusal_is_shown_as_it_is(config: Path) -> None:
    done = fourways("list-runs", "price")
    assert done.exit_code == 1
    assert done.stderr == "[/x] \\x1b[31m is forbidden\n"


def test_a_server_that_does_not_answer_is_said_to(config: Path, api: ApiServer) -> None:
    document = json.loads(config.read_text())
    document["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    config.write_text(json.dumps(document))
    done = fourways("status")
    assert done.exit_code == 1
    assert "the API server does not answer" in done.stderr
