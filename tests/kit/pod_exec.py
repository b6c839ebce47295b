"""The exec of a pod's container over a WebSocket, as an API server answers it: it runs here."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import WSMsgType, web

STDIN, STDERR, ERROR = b"\x00", b"\x02", b"\x03"
PROTOCOL = "v4.channel.k8s.io"
"""Each message begins with a byte for its channel."""


async def _run(socket: web.WebSocketResponse, command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stderr is not None

    async def feed() -> None:
        assert process.stdin is not None
        async for message in socket:
            if message.type == WSMsgType.BINARY and message.data[:1] == STDIN:
                process.stdin.write(message.data[1:])
                await process.stdin.drain()

    feeding = asyncio.create_task(feed())
    said = await process.stderr.read()
    code = await process.wait()
    feeding.cancel()
    if said:
        await socket.send_bytes(STDERR + said)
    status: dict[str, Any] = {"status": "Success"}
    if code:
        cause = {"reason": "ExitCode", "message": str(code)}
        status = {"status": "Failure", "details": {"causes": [cause]}}
    await socket.send_bytes(ERROR + json.dumps(status).encode())


@contextmanager
def pod_exec(command: Callable[[list[str]], list[str]]) -> Iterator[int]:
    """Answer at a port of loopback; ``command`` says what is run instead of a pod's command."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        await _run(socket, command(request.query.getall("command")))
        await socket.close()
        return socket

    loop = asyncio.new_event_loop()
    application = web.Application()
    application.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/exec", answer)
    runner = web.AppRunner(application)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield runner.addresses[0][1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()
