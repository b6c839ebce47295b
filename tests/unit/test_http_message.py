"""Responses as bytes: what is sent most takes a way of its own, with the same result."""

from __future__ import annotations

import pytest

from fourways_http import Response
from fourways_http.message import head_of, message_of

TAIL = b"\r\ndate: now\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 99, 4095, 4096, 20_000])
@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("content_type", [b"application/json", b"application/octet-stream"])
@pytest.mark.parametrize("headers", [(), (b"retry-after: 1",)])
def test_a_message_is_its_head_and_its_body(
    size: int, status: int, content_type: bytes, headers: tuple[bytes, ...]
) -> None:
    response = Response(b"x" * size, status, content_type, headers)

    sent = message_of(response, TAIL)

    assert sent == head_of(response, TAIL) + response.body
    assert b"\r\ncontent-length: %d\r\n" % size in sent


def test_the_usual_response_is_written_as_it_always_was() -> None:
    assert message_of(Response(b"{}"), TAIL) == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2"
        b"\r\ndate: now\r\n\r\n{}"
    )
