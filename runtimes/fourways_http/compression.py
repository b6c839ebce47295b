"""Compresses large responses for clients that accept gzip, on a thread.

The fastest level is used: on a network of a gigabit, a slower one costs more time than it saves.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Final

from .message import Request, Response

MIN_BYTES: Final = 32 * 1024
"""Smaller responses are sent as they are: they fit into a few packets anyway."""

_LEVEL = 1
_GZIP = 31
"""The window bits with which zlib writes gzip's format."""

_HEADERS = (b"content-encoding: gzip", b"vary: accept-encoding")
_TYPES = (b"application/json", b"application/octet-stream", b"text/")
_NEVER = re.compile(rb"q=0(\.0*)?")


def compressible(request: Request, response: Response) -> bool:
    """Return whether a large response is of a kind that shrinks, and the client takes gzip."""
    return (
        request.method != b"HEAD"
        and response.content_type.startswith(_TYPES)
        and not any(line.lower().startswith(b"content-encoding:") for line in response.headers)
        and _accepts(request.header(b"accept-encoding"))
    )


async def compressed(response: Response) -> Response:
    """Return the response with its body in gzip's format."""
    loop = asyncio.get_running_loop()
    body = await loop.run_in_executor(None, zlib.compress, response.body, _LEVEL, _GZIP)
    headers = (*response.headers, *_HEADERS)
    return Response(body, response.status, response.content_type, headers)


def _accepts(asked: bytes | None) -> bool:
    """Return whether ``Accept-Encoding`` names gzip; ``*`` alone does not ask for it."""
    for part in (asked or b"").lower().split(b","):
        coding, _, weight = part.replace(b" ", b"").partition(b";")
        if coding in (b"gzip", b"x-gzip"):
            return _NEVER.fullmatch(weight) is None
    return False
