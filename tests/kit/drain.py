"""Clients that ask a server until it sends them elsewhere, as a balancer of load would have it."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import httpx

from tests.kit.serving_plane import NO_TLS

CLIENTS = 4


def drained(
    process: subprocess.Popen[Any],
    url: str,
    ask: Callable[[httpx.Client], httpx.Response],
    is_right: Callable[[httpx.Response], bool],
    *,
    after: int,
) -> list[str]:
    """Ask from several clients, send SIGTERM meanwhile; return what went wrong.

    Args:
        process: The server.
        url: Its address.
        ask: Ask once.
        is_right: Whether a response is what was asked for.
        after: The number of responses after which SIGTERM is sent.

    """
    enough = threading.Event()
    faults: list[str] = []
    answered = [0]

    def keep_asking() -> None:
        with httpx.Client(base_url=url, verify=NO_TLS) as client:
            leaving = False
            while not leaving:
                try:
                    answer = ask(client)
                except httpx.HTTPError as error:
                    faults.append(repr(error))
                    return
                if not is_right(answer):
                    faults.append(answer.text)
                # Who is told to leave goes elsewhere: whoever balances load has heard by now.
                leaving = answer.headers.get("connection") == "close"
                answered[0] += 1
                if answered[0] >= after:
                    enough.set()

    clients = [threading.Thread(target=keep_asking) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    assert enough.wait(60), faults
    process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join(60)
    assert not any(client.is_alive() for client in clients)
    return faults
