"""A server on loopback answers this machine's programs, and no web page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from fourways_http import Response, Router, Server
from fourways_http.loopback import is_loopback


@pytest.fixture
async def url() -> AsyncIterator[str]:
    router = Router()
    router.add("GET", "/", lambda request: Response(b"yes"))
    router.add("POST", "/", lambda request: Response(b"yes"))
    server = Server(router)
    await server.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.port}"
    await server.drain(0, 0.2)


OWN = ("127.0.0.1", "localhost", "127.8.8.8", "[::1]", "LOCALHOST", "localhost:1", "127.0.0.1:8080")
FOREIGN = (
    "rebind.example",
    "rebind.example:8080",
    "127.0.0.1.example",
    "localhost.example",
    "localhost@rebind.example",
    "10.0.0.1",
    "[::2]",
    "localhost:x",
    "[",
)


@pytest.mark.parametrize("host", OWN)
async def test_names_of_this_machine(url: str, host: str) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(url, headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_foreign_hosts_are_refused(url: str, host: str) -> None:
    async with httpx.AsyncClient() as http:
        for _ in range(2):  # the second time it is known
            assert (await http.get(url, headers={"Host": host})).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8080", 200),
        ("http://127.0.0.1", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://localhost.evil.example", 403),
    ],
)
async def test_origins(url: str, origin: str, status: int) -> None:
    async with httpx.AsyncClient() as http:
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        assert (await http.post(url, headers=headers)).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # An image or a script of a page: it has no Origin.
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        # Typed by the user, or no browser.
        ({"Sec-Fetch-Site": "none"}, 200),
        # A page of http://localhost:3000 that asks http://127.0.0.1:8080.
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:3000"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:3000", "Host": "rebind.example"}, 403),
    ],
)
async def test_what_pages_load(url: str, headers: dict[str, str], status: int) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(url, headers=headers)).status_code == status


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("x", False)],
)
def test_is_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


async def test_a_server_for_others_takes_any_host() -> None:
    router = Router()
    router.add("GET", "/", lambda request: Response(b"yes"))
    server = Server(router)
    await server.start("0.0.0.0", 0)
    async with httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{server.port}"
        assert (await http.get(url, headers={"Host": "shop.example"})).status_code == 200
    await server.drain(0, 0.2)


async def test_a_head_that_was_let_through_lets_no_other_through(url: str) -> None:
    async with httpx.AsyncClient() as http:
        for _ in range(4):  # each head is known from its second time on
            for headers, status in (
                ({"Host": "localhost"}, 200),
                ({"Host": "rebind.example"}, 403),
                ({"Host": "localhost", "Origin": "https://evil.example"}, 403),
                ({"Host": "localhost", "Origin": "http://localhost"}, 200),
                ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, 403),
            ):
                assert (await http.get(url, headers=headers)).status_code == status
