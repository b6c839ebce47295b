"""Requests and responses of the client, without sending them.

Owns paths, headers, credentials, what is tried again, and which error a response means. The two
clients send what is built here.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from .errors import (
    CallerRefused,
    EventRefused,
    FourwaysError,
    GatewayUnavailable,
    PredictionMissing,
    PredictionPending,
    RequestInvalid,
    ServerFault,
)
from .prediction import Event, Json, Key

KEY_VARIABLE = "FOURWAYS_API_KEY"
RETRIED = frozenset({429, 503})
LONGEST_WAIT_SECONDS = 30
"""Maximum time that a gateway holds a request; for longer waits it is sent again."""

_LONGEST_PAUSE = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    json: Json | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how a client asks."""

    url: str
    api_key: str | None
    token_file: Path | None
    timeout: float
    attempts: int

    def request(self, call: Call) -> dict[str, Any]:
        """Return the arguments of httpx's ``request`` for a call."""
        waits = float((call.headers or {}).get("prefer", "wait=0").removeprefix("wait="))
        return {
            "method": call.method,
            "url": call.path,
            "json": call.json,
            "headers": {**(call.headers or {}), **self._credentials()},
            "timeout": self.timeout + waits,
        }

    def _credentials(self) -> dict[str, str]:
        key = self.api_key
        if self.token_file is not None:
            key = self.token_file.read_text("ascii").strip()  # the kubelet renews it
        return {"authorization": f"Bearer {key}"} if key else {}

    def pause_after(
        self, answer: httpx.Response | httpx.TransportError, attempt: int
    ) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is to be none."""
        if attempt >= self.attempts:
            return None
        if isinstance(answer, httpx.TransportError):
            return _pause(attempt, None)
        if answer.status_code not in RETRIED:
            return None
        return _pause(attempt, answer.headers.get("retry-after"))

    def accepted(self, answer: httpx.Response | httpx.TransportError) -> httpx.Response:
        """Return a response of status 200 or 202. Raises FourwaysError for any other."""
        if isinstance(answer, httpx.TransportError):
            raise GatewayUnavailable(f"{self.url}: {answer or type(answer).__name__}") from answer
        if answer.status_code not in (200, 202):
            raise error_of(answer.status_code, _json(answer))
        return answer


def settings(
    url: str,
    api_key: str | None,
    token_file: str | Path | None,
    timeout: float,
    attempts: int,
) -> Settings:
    """Check the arguments of a client. Raises ValueError."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not the URL of a gateway, such as http://127.0.0.1:8080")
    if timeout <= 0 or attempts < 1:
        raise ValueError("timeout must be above 0, and attempts at least 1")
    file = Path(token_file) if token_file is not None else None
    key = api_key or (None if file else os.environ.get(KEY_VARIABLE))
    return Settings(url.rstrip("/"), key, file, timeout, attempts)


# ---- calls


def metadata(deployment: str) -> Call:
    """Describe a deployment."""
    return Call("GET", f"/v2/models/{_name(deployment)}")


def lookup(deployment: str, key: Key, wait: float = 0.0) -> Call:
    """Look up the prediction for a key."""
    path = f"/predictions/{_name(deployment)}/{quote(str(key), safe='')}"
    return Call("GET", path, headers=_waiting(wait))


def at(location: str, wait: float) -> Call:
    """Look up the prediction of an accepted event."""
    return Call("GET", location, headers=_waiting(wait))


def infer(
    deployment: str,
    tensors: list[Json],
    parameters: Json | None = None,
    wait: float = 0.0,
    idempotency_key: str | None = None,
) -> Call:
    """Ask for predictions of records. A repeated call publishes no second event."""
    body: Json = {"inputs": tensors}
    if parameters:
        body["parameters"] = parameters
    headers = {**_waiting(wait), "idempotency-key": idempotency_key or str(uuid4())}
    return Call("POST", f"/v2/models/{_name(deployment)}/infer", body, headers)


def _name(deployment: str) -> str:
    return quote(deployment, safe="")


def _waiting(seconds: float) -> dict[str, str]:
    if seconds <= 0:
        return {}
    return {"prefer": f"wait={max(1, min(int(seconds), LONGEST_WAIT_SECONDS))}"}


# ---- responses


def _pause(attempt: int, retry_after: str | None) -> float:
    """Return the seconds to wait after an attempt: as the gateway asks, at least a doubling."""
    try:
        asked = float(retry_after) if retry_after is not None else 0.0
    except ValueError:
        asked = 0.0
    own: float = 0.1 * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311
    return min(max(asked, own), _LONGEST_PAUSE)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def event_of(body: Json, location: str) -> Event:
    """Read the 202 of one event."""
    return Event(body["deployment"], body["key"], body["id"], location)


def error_of(status: int, body: Any) -> FourwaysError:
    """Return the error that a response means; ``body`` is its JSON, or None."""
    details: Json = body if isinstance(body, dict) else {}
    message = str(details.get("error") or f"the gateway answered with status {status}")
    kinds: dict[int, type[FourwaysError]] = {
        202: PredictionPending,
        401: CallerRefused,
        403: CallerRefused,
        404: PredictionMissing,
        422: EventRefused,
        429: GatewayUnavailable,
        502: ServerFault,
        503: GatewayUnavailable,
        504: GatewayUnavailable,
    }
    if status == 202:
        message = "the event was accepted, and its prediction is not there yet"
    kind = kinds.get(status, RequestInvalid if status < 500 else ServerFault)
    return kind(message, details)
