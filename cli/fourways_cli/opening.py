"""``fourways open``: the gateway's pages, in a browser."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import webbrowser
from typing import Annotated
from urllib.parse import quote

import typer

from .completion import deployment_names
from .embedded.ports import MAX_PORT, free_port
from .inspecting import deployment_of
from .target_command import Scope, failed, given, open_scope, or_exit
from .targets import ClusterTarget, EmbeddedTarget
from .terminal import say


@given(open_scope)
def open_page(
    scope: Scope,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A deployment; all of the namespace by default.", autocompletion=deployment_names
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port on loopback that leads to a cluster's gateway; by default a free one.",
            min=1,
            max=MAX_PORT,
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser; otherwise only print.")] = True,
) -> None:
    """Print the address of a deployment's page, and open it in a browser.

    A cluster's gateway is reached by `kubectl port-forward`, which runs until Ctrl-C.
    """
    if name is not None:
        deployment_of(scope, name)
    path = "/" if name is None else f"/deployments/{quote(name, safe='')}"
    target = scope.target
    if isinstance(target, ClusterTarget):
        here = port or free_port()
        command = target.forward_command(scope.namespace, here)
        _forward(command, f"http://127.0.0.1:{here}{path}", browser)
    elif isinstance(target, EmbeddedTarget):
        _show(or_exit(lambda: target.gateway_url(scope.namespace)) + path, browser)


def _show(address: str, browser: bool) -> None:
    say(address)
    if browser:
        webbrowser.open(address)


def _forward(command: list[str], address: str, browser: bool) -> None:
    if shutil.which(command[0]) is None:
        raise failed(f"{command[0]} is not installed; where it is: {shlex.join(command)}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None  # noqa: S101  (it is a pipe)
            # It prints a line once it listens, and its reasons on standard error otherwise.
            if forwarding.stdout.readline():
                _show(address, browser)
            for _ in forwarding.stdout:
                pass  # a line for each connection: an unread pipe would hold it up
            code = forwarding.wait()
        except KeyboardInterrupt:
            return
        finally:
            forwarding.terminate()
    if code:
        raise failed(f"the gateway cannot be reached: {shlex.join(command)} ended with {code}")
