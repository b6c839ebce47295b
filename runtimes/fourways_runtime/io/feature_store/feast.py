"""Features from Feast, asked at its feature server over HTTP; Feast itself is not imported.

``table`` of the lookup is a feature service, and the contract's entity key is its join key. The
address and the token are read again for each request, so a rotated Secret needs no restart.
Nothing but ``POST /get-online-features`` and ``GET /health`` is sent.

Source of the protocol: https://docs.feast.dev/reference/feature-servers/python-feature-server
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orjson

from fourways_runtime.errors import ConfigError, FeaturesMismatch, FeaturesUnavailable
from fourways_runtime.scoring import exact_json
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row

from .base import WHAT, Wanted

MAX_CONNECTIONS = 4
MAX_BYTES = 2**24
"""Maximum size of an answer."""

EVENT_TIME = "event_timestamp"
"""What :attr:`.base.Wanted.inputs` calls the time of the features, which is no feature itself."""

_NO_KEY = b"Missing join key"
_ABSENT = ("NOT_FOUND", "OUTSIDE_MAX_AGE")
_SAID = 300


class FeastSource:
    """A feature service of a feature server; see :class:`.base.FeatureDatabase`."""

    concurrency = MAX_CONNECTIONS

    def __init__(
        self,
        wanted: Wanted,
        url: Callable[[], str],
        token: Callable[[], str | None],
        authority: Path | None,
    ) -> None:
        """``authority`` is the certificate by which the server is verified, with ``feasts://``.

        Raises ConfigError: the lookup is a query.
        """
        if wanted.table is None:
            raise ConfigError("features: Feast has no queries: set table to a feature service")
        self._wanted = wanted
        self._service = wanted.table
        self._url, self._token = url, token
        self._authority = authority
        self._client: httpx.AsyncClient | None = None

    async def query(self, keys: list[Key]) -> dict[Key, Row]:
        """Return the rows of these keys; an entity without any of the inputs has none."""
        meant = self._wanted.meant(keys)
        if not meant:
            await self._sent("GET", "/health")
            return {}
        return self._rows(await self._asked(list(meant)), meant)

    async def check(self) -> None:
        """Ask for a key that need not exist, and check the features of the service."""
        await self.query([0 if self._wanted.key.type == "int64" else ""])

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(httpx.HTTPError, OSError):
                await client.aclose()

    async def _asked(self, keys: list[Key]) -> bytes:
        asked = {"feature_service": self._service, "entities": {self._wanted.key.name: keys}}
        status, body = await self._sent("POST", "/get-online-features", orjson.dumps(asked))
        # A key that is not the service's is a fault of the server, for Feast.
        if status in (404, 422) or (status == 500 and _NO_KEY in body):
            raise FeaturesMismatch(
                f"features: feature service {self._service} with the entity"
                f" {self._wanted.key.name}: Feast says {_said(body)}"
            )
        if status != 200:
            raise FeaturesUnavailable(f"{WHAT} answers {status}: {_said(body)}")
        return body

    async def _sent(
        self, method: str, path: str, content: bytes | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of an answer. Raises FeaturesUnavailable."""
        headers = {"content-type": "application/json"}
        token = self._token()
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        body = bytearray()
        try:
            async with self._connected().stream(
                method, self._url() + path, content=content, headers=headers
            ) as answer:
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise FeaturesUnavailable(
                            f"{WHAT} answers with more than {MAX_BYTES >> 20} MiB"
                        )
        except (httpx.HTTPError, OSError) as error:
            await self.close()
            text = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise FeaturesUnavailable(f"{WHAT}: {text[:_SAID]}") from None
        return answer.status_code, bytes(body)

    def _rows(self, body: bytes, meant: dict[Key, list[Key]]) -> dict[Key, Row]:
        try:
            answer = exact_json.loads(body)
            names: list[str] = answer["metadata"]["feature_names"]
            columns: list[dict[str, Any]] = answer["results"]
            timed = [EVENT_TIME] if EVENT_TIME in self._wanted.inputs else []
            places = self._wanted.placed([*names, *timed])
            rows: dict[Key, Row] = {}
            for at, given in enumerate(meant.values()):
                row = _row(at, columns, places, len(names))
                if any(value is not None for value in row.values()):
                    rows.update(dict.fromkeys(given, row))
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
            raise FeaturesUnavailable(
                f"{WHAT} does not answer as a feature server of Feast: {_said(body)}"
            ) from None
        return rows

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            tls = self._url().startswith("https:")
            self._client = httpx.AsyncClient(
                verify=ssl.create_default_context(cafile=self._authority) if tls else False,
                timeout=self._wanted.timeout,
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
                trust_env=False,
                follow_redirects=False,
            )
        return self._client


def _row(
    at: int, columns: list[dict[str, Any]], places: Sequence[tuple[str, int]], features: int
) -> Row:
    """Return the row of one entity; what follows the features is the time of the oldest."""
    row: dict[str, Any] = {}
    times: list[str] = []
    for name, place in places:
        if place < features and columns[place]["statuses"][at] not in _ABSENT:
            row[name] = columns[place]["values"][at]
            times += columns[place].get("event_timestamps", ())[at : at + 1]
        else:
            row[name] = None
    if EVENT_TIME in row and times:
        row[EVENT_TIME] = min(times)
    return row


def _said(body: bytes) -> str:
    """Return what an answer says of an error, bounded; it holds no values of features."""
    try:
        detail = orjson.loads(body)
        detail = detail["detail"] if isinstance(detail, dict) else detail
    except (orjson.JSONDecodeError, KeyError):
        detail = body.decode("utf-8", "replace")
    return str(detail)[:_SAID]
