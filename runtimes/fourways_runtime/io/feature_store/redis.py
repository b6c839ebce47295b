"""Features from Redis: a hash for each entity, with a field for each input.

The key of an entity's hash is ``TABLE:KEY``, with ``table`` of the lookup. Values are texts, which
are read as the contract declares them: numbers, ``0``, ``1``, ``true`` and ``false``, and lists as
JSON. The address is read again for each connection after a failure, so a rotated Secret needs no
restart. Nothing but HMGET and PING is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from fourways_api import InputField
from fourways_runtime.errors import ConfigError, FeaturesMismatch, FeaturesUnavailable
from fourways_runtime.scoring import exact_json
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row

from .base import WHAT, Wanted

MAX_CONNECTIONS = 4
CONNECT_SECONDS = 5.0

_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


class RedisSource:
    """Hashes of a Redis database; see :class:`.base.FeatureDatabase`."""

    concurrency = MAX_CONNECTIONS

    def __init__(self, wanted: Wanted, uri: Callable[[], str], authority: Path | None) -> None:
        """``authority`` is the certificate by which the server is verified, with ``rediss://``.

        Raises ConfigError: the lookup is a query.
        """
        if wanted.table is None:
            raise ConfigError(
                "features: Redis has no queries: set table to the part of the keys before the colon"
            )
        self._wanted = wanted
        self._table = wanted.table
        self._uri = uri
        self._authority = authority
        self._client: Redis | None = None

    async def query(self, keys: list[Key]) -> dict[Key, Row]:
        """Return the rows of these keys; a hash without any of the inputs is none."""
        meant = self._wanted.meant(keys)
        client = self._connected()
        try:
            if not meant:
                await client.ping()
                return {}
            pipeline = client.pipeline(transaction=False)
            for key in meant:
                pipeline.hmget(f"{self._table}:{key}", list(self._wanted.inputs))
            found = await pipeline.execute()
        except ResponseError as error:
            if str(error).startswith("Command") and "WRONGTYPE" in str(error):
                raise FeaturesMismatch(
                    f"features: a key that begins with {self._table}: is not a hash"
                ) from None
            raise await self._unavailable(error) from None
        except (RedisError, OSError, TimeoutError) as error:
            raise await self._unavailable(error) from None
        rows: dict[Key, Row] = {}
        for given, values in zip(meant.values(), found, strict=True):
            if any(value is not None for value in values):
                rows.update(dict.fromkeys(given, self._row(values)))
        return rows

    async def check(self) -> None:
        """Connect. Hashes have no columns that could be checked."""
        try:
            await self._connected().ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise await self._unavailable(error) from None

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(RedisError, OSError):
                await client.aclose()

    def _connected(self) -> Redis:
        if self._client is None:
            options: dict[str, Any] = {}
            uri = self._uri()
            if self._authority is not None and uri.startswith("rediss://"):
                options["ssl_ca_certs"] = str(self._authority)
            try:
                self._client = Redis.from_url(
                    uri,
                    max_connections=MAX_CONNECTIONS,
                    socket_timeout=self._wanted.timeout,
                    socket_connect_timeout=CONNECT_SECONDS,
                    **options,
                )
            except ValueError:
                raise ConfigError(f"the URI of {WHAT} is not a Redis URI") from None
        return self._client

    async def _unavailable(self, error: Exception) -> FeaturesUnavailable:
        """Disconnect; return what is wrong. Redis' errors name no password."""
        await self.close()
        text = next(iter(str(error).splitlines()), "") or type(error).__name__
        return FeaturesUnavailable(f"{WHAT}: {text[:300]}")

    def _row(self, values: list[bytes | None]) -> Row:
        named = zip(self._wanted.inputs, values, strict=True)
        return {name: _typed(self._wanted.fields.get(name), value) for name, value in named}


def _typed(field: InputField | None, value: bytes | None) -> Any:
    """Return a value as the contract declares it; the contract check reports what does not fit."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace")
    if field is None:
        return text
    with suppress(ValueError):  # JSONDecodeError is one
        if field.shape:
            return exact_json.loads(text)
        if field.type == "bool":
            return _BOOLEANS.get(text.lower(), text)
        if field.type.startswith(("int", "uint")):
            return int(text)
        if field.type.startswith("float"):
            return float(text)
    return text
