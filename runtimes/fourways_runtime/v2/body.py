"""A request's body: decompressed, and split into its JSON and its binary tensors.

Owns gzip and deflate, the header that says where binary tensors begin, and the size above which a
body is not read on the event loop.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import orjson

from fourways_http import HttpError, Request
from fourways_runtime.scoring import exact_json

from .protocol import refuse

OFF_LOOP_BYTES = 100 * 1024
"""Bodies above this size, and compressed ones, are read on a thread: see :func:`is_heavy`."""

MAX_BODY_BYTES = 16 * 2**20
"""Maximum size of a compressed body once decompressed, unless the server sets another."""

BINARY_HEADER: Final = b"inference-header-content-length"
"""Number of bytes of JSON in a body; binary tensors follow them."""

_WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 47}


def is_heavy(request: Request) -> bool:
    """Return whether reading the body would block the event loop for too long."""
    return len(request.body) > OFF_LOOP_BYTES or is_compressed(request)


def is_compressed(request: Request) -> bool:
    """Tell whether the body has a content encoding."""
    return request.header(b"content-encoding") is not None


def split_body(
    request: Request, max_bytes: int, *, exact: bool = True
) -> tuple[Any, memoryview | None, bytes]:
    """Return the body's JSON, its binary part (None without one), and the decompressed body.

    Not ``exact``: integers of more than 64 bits are floats.

    Raises HttpError 400, 413 or 415, naming the field or the header.
    """
    body = _uncompressed(request, max_bytes)
    length = request.header(BINARY_HEADER)
    if length is None:
        try:
            return _loads(body, exact), None, body
        except orjson.JSONDecodeError as error:
            raise HttpError(400, f"the body is not JSON: {error}") from None
    digits = length.strip()
    if not digits.isdigit() or len(digits) > 12 or int(digits) > len(body):
        where = "Inference-Header-Content-Length"
        raise refuse(where, f"must be a number of bytes, at most the body's {len(body)}")
    end = int(digits)
    try:
        header = _loads(body[:end], exact)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"the first {end} bytes of the body are not JSON: {error}") from None
    return header, memoryview(body)[end:], body


def _loads(text: bytes, exact: bool) -> Any:
    parse: Any = exact_json.loads if exact else orjson.loads
    if len(text) <= OFF_LOOP_BYTES:
        return parse(text)
    # Imports numpy, which the gateway of batch runs does without.
    from .sliced_json import MAX_CONTAINERS, TooManyContainers, loads

    try:
        return loads(text, parse)
    except TooManyContainers:
        fault = f"the body has more than {MAX_CONTAINERS:,} lists and objects"
        raise HttpError(400, f"{fault}: send the data of a tensor as one flat list") from None


def _uncompressed(request: Request, max_bytes: int) -> bytes:
    encoding = (request.header(b"content-encoding") or b"identity").strip().lower()
    if encoding == b"identity":
        if len(request.body) > max_bytes:
            raise HttpError(413, "the request's body is too large")
        return request.body
    window = _WINDOWS.get(encoding)
    if window is None:
        shown = encoding[:40].decode("ascii", "replace")
        raise HttpError(415, f"Content-Encoding {shown} is not accepted; gzip and deflate are")
    unpacker = zlib.decompressobj(window)
    try:
        body = unpacker.decompress(request.body, max_bytes + 1)
    except zlib.error:
        raise HttpError(400, f"the body is not {encoding.decode('ascii')}") from None
    if len(body) > max_bytes:
        raise HttpError(413, "the request's body is too large when uncompressed")
    if not unpacker.eof:
        raise HttpError(400, f"the body is truncated: its {encoding.decode('ascii')} data ends")
    if unpacker.unused_data:
        left, kind = len(unpacker.unused_data), encoding.decode("ascii")
        raise HttpError(
            400, f"the body has {left} bytes behind its {kind} data: compress it as one stream"
        )
    return body
