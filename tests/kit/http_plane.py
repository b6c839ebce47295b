"""An HTTP server on a real socket, an application that the test holds up, and a raw client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from fourways_http import HttpError, Limits, Request, Response, Router, Server

FAST = Limits(
    target_bytes=512,
    header_bytes=2048,
    headers=20,
    body_bytes=100_000,
    connections=8,
    pipeline=4,
    idle_seconds=0.25,
    header_seconds=0.25,
    body_seconds=0.25,
    write_seconds=0.25,
    linger_seconds=0.25,
)


BIG = b"x" * 4_000_000


class Gate:
    """An application whose slow answers wait until the test lets them go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0
        router = self.router = Router()
        router.add("GET", "/", lambda request: Response(b'{"ok":true}'))
        router.add("GET", "/slow", self.slow)
        router.add("GET", "/future", self.future)
        router.add("GET", "/raise", self.fail)
        router.add("GET", "/teapot", self.teapot)
        router.add("GET", "/big", lambda request: Response(BIG))
        router.add("POST", "/echo", lambda request: Response(request.body))
        router.add("GET", "/names/{name}/of/{other}", self.names)

    async def slow(self, request: Request) -> Response:
        self.calls += 1
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Response(b"slow")

    def future(self, request: Request) -> asyncio.Future[Response]:
        return asyncio.ensure_future(self.slow(request))

    def fail(self, request: Request) -> Response:
        raise RuntimeError("password=hunter2")

    async def teapot(self, request: Request) -> Response:
        raise HttpError(418, "no coffee", (b"retry-after: 7",), field="pot")

    def names(self, request: Request) -> Response:
        return Response("|".join((*request.params.values(), str(request.query))).encode())


class Client:
    """A raw client that reads answers by their content-length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[bytes, bytes]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:-2])
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        async with asyncio.timeout(30):
            status, headers = await self.head()
            return status, headers, await self.reader.readexactly(int(headers[b"content-length"]))

    async def ended(self) -> bytes:
        """Wait for the server to close; return what came before."""
        async with asyncio.timeout(30):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    start = f"{method} {path} HTTP/{version}"
    return "\r\n".join((start, "Host: localhost", *headers, "", "")).encode()


def post(body: bytes, *headers: str) -> bytes:
    return get("/echo", f"Content-Length: {len(body)}", *headers, method="POST") + body


@contextlib.asynccontextmanager
async def http_server(gate: Gate) -> AsyncIterator[Server]:
    """Serve the application; let its slow answers go at the end."""
    server = Server(gate.router, FAST)
    await server.start("127.0.0.1", 0)
    yield server
    gate.open.set()
    await server.drain(0, 1)


def reset(client: Client) -> None:
    """End the connection in a way that the server cannot take for a half-closed one."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()
