"""Pages of other origins: which may ask, what their browsers are told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from fourways_http import HttpError, Request, Response, Router, Server
from tests.kit.http_plane import FAST

SHOP = "https://shop.example.com"
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
SHARED = Response(b"{}")


def fail(request: Request) -> Response:
    raise HttpError(503, "not now", (b"retry-after: 1",))


@contextlib.asynccontextmanager
async def serving(*origins: str) -> AsyncIterator[httpx.AsyncClient]:
    router = Router()
    router.add("GET", "/", lambda request: SHARED)
    router.add("GET", "/fail", fail)
    server = Server(router, FAST, origins=origins)
    await server.start("127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
            yield client
    finally:
        await server.drain(0, 1)


@pytest.mark.parametrize("allowed", [SHOP, "*"])
async def test_a_page_of_an_allowed_origin_reads_responses_and_errors(allowed: str) -> None:
    async with serving(allowed) as client:
        for path, status in (("/", 200), ("/fail", 503)):
            answer = await client.get(path, headers={"Origin": SHOP})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert "retry-after" in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "Origin"
        asked = await client.options("/", headers={"Origin": SHOP, **ASKS})
        assert asked.status_code == 200
        assert "authorization" in asked.headers["access-control-allow-headers"]
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "access-control-allow-origin" not in (await client.get("/")).headers


@pytest.mark.parametrize(
    "origin", ["https://shop.example.com.evil", "http://shop.example.com", "null", f"{SHOP}:8443"]
)
async def test_a_page_of_another_origin_is_refused_on_loopback(origin: str) -> None:
    async with serving(SHOP) as client:
        assert (await client.get("/", headers={"Origin": origin})).status_code == 403
        asked = await client.options("/", headers={"Origin": origin, **ASKS})
        assert "access-control-allow-origin" not in asked.headers
    async with serving() as client:
        assert (await client.get("/", headers={"Origin": SHOP})).status_code == 403
