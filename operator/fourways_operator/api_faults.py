"""The fault that a response of the API server stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .errors import (
    ApiFault,
    ApiUnreachable,
    Conflict,
    Forbidden,
    HookFailed,
    Invalid,
    ObjectGone,
    ServerError,
    Throttled,
)


def fault_of(
    what: str, status: int, body: str | bytes | None, headers: Mapping[str, str]
) -> ApiFault:
    """Convert a response that is not 2xx to the fault it stands for.

    The API server's ``Forbidden`` message names user, verb and resource. All messages are the
    server's own text about the operator's own objects, so they are safe to log and to show.
    """
    message, causes = _status_of(body)
    text = f"{what}: {message or f'HTTP {status}'}"
    after = _seconds(headers)
    match status:
        case 404 | 410:
            return ObjectGone(text)
        case 403 if "NamespaceTerminating" in causes:
            return ObjectGone(text)
        case 409:
            return Conflict(text)
        # The response to an apply to another object of the same name: the uid is immutable.
        case 422 if "metadata.uid" in causes:
            return Conflict(text)
        case 401 | 403:
            return Forbidden(text)
        case 400 | 422:
            return Invalid(text)
        case 500 if "failed calling webhook" in message:
            return HookFailed(text)
        case 429:
            return Throttled(text, after or 1.0)
        case 503 if after is not None:
            return Throttled(text, after)
        case 0:
            return ApiUnreachable(text)
        case _:
            return ServerError(text)


def _status_of(body: str | bytes | None) -> tuple[str, tuple[str, ...]]:
    try:
        status = json.loads(body or "{}")
        causes = (status.get("details") or {}).get("causes") or []
        words = (str(c.get(key)) for c in causes for key in ("reason", "field"))
        return str(status.get("message", "")), tuple(words)
    except (ValueError, AttributeError):
        return "", ()


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = {k.lower(): v for k, v in headers.items()}.get("retry-after", "")
    return float(value) if value.isdigit() else None
