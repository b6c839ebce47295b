"""The time-out that a client sends with its request.

``X-Request-Timeout: 0.25`` is in seconds; ``grpc-timeout: 250m`` has gRPC's format.
"""

from __future__ import annotations

from fourways_http import Request

from .protocol import refuse

HEADER = b"x-request-timeout"
_GRPC = b"grpc-timeout"
_UNITS = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
_MAX_DIGITS = 16


def timeout_of(request: Request) -> float | None:
    """Return the client's time-out in seconds, None without one. Raises HttpError 400."""
    for name, value in request.headers:
        size = len(name)
        if size == len(HEADER) and name.lower() == HEADER:
            return _seconds(
                value.strip(), 1.0, "X-Request-Timeout", "seconds above 0, such as 0.25"
            )
        if size == len(_GRPC) and name.lower() == _GRPC:
            text = value.strip()
            unit = _UNITS.get(text[-1:], 0.0)
            return _seconds(text[:-1], unit, "grpc-timeout", "a number and a unit, such as 250m")
    return None


def _seconds(text: bytes, unit: float, header: str, form: str) -> float:
    plain = len(text) <= _MAX_DIGITS and text.replace(b".", b"", 1).isdigit()
    seconds = float(text) * unit if plain else 0.0
    if seconds <= 0.0:
        raise refuse(header, f"must be {form}")
    return seconds
