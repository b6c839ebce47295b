"""A server in bytes that a test scripts, for what stands behind a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.kit.waiting import turns

Script = Callable[["Upstream", bytes, bytes], Awaitable[bytes | None]]


def said(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


class Upstream:
    """A model server in bytes. The script answers a request; None closes the connection."""

    def __init__(self) -> None:
        self.script: Script = echo
        self.heads: list[bytes] = []
        self.connections = 0
        self.hold = asyncio.Event()
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                size = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(size or 0))
                answer = await self.script(self, head, body)
                if answer is None:
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def listen(self, port: int = 0) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await turns()


async def echo(upstream: Upstream, head: bytes, body: bytes) -> bytes | None:
    return said(body, "content-type: application/json")
