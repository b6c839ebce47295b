"""Device features by entity key: from the gateway while online, else its last response.

Owns what a device remembers about entities: a small database in the state folder, newest entries
only. The values are not signed, so they are held to the contract before they are used or kept, and
kept ones are used up to an age only. A request to the gateway has a short timeout, and after a
failed one the device sends none for a while, so that a missing network does not slow it down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any
from urllib.parse import quote, urlencode

from fourways_api import Contract
from fourways_api.modes import FeatureLookup
from fourways_runtime.scoring.single import FieldChecks

from .remote import opener
from .state import Store

logger = logging.getLogger("fourways.agent")

BUDGET_SECONDS = 0.5
PAUSE_SECONDS = 5.0
_UNITS = {"s": 1, "m": 60, "h": 3600}
KEPT = 10_000
"""Maximum number of remembered entities."""

_MAX_BYTES = 2**20
_TABLE = "create table if not exists seen (key text primary key, told text, at real)"

Key = str | int


_MAX_AGE = 86_400.0


def seconds_of(text: str) -> float | None:
    """Return the seconds of a time such as ``60s``, ``5m`` or ``1h``; None if it is none."""
    found = re.fullmatch(r"(\d{1,6})([smh])", text)
    return float(found[1]) * _UNITS[found[2]] if found else None


class Features:
    """The device features of one deployment, by entity key."""

    def __init__(self, store: Store, contract: Contract, lookup: FeatureLookup) -> None:
        self._file = store.folder / "features.sqlite"
        self._settings = store.settings()
        self._key = contract.entity_key.name
        self._inputs = lookup.inputs or tuple(field.name for field in contract.inputs)
        bools = {field.name for field in contract.inputs if field.type == "bool"}
        self._defaults: dict[str, Any] = {
            it.name: bool(it.number)
            if it.name in bools
            else (it.text if it.number is None else it.number)
            for it in lookup.defaults
        }
        settings = self._settings
        self._opener = opener(settings.ca_file if settings else "")
        self._checks = FieldChecks(contract)
        self._max_age = seconds_of(settings.features_max_age if settings else "") or _MAX_AGE
        self._asked_again = 0.0
        self._lock = threading.Lock()

    def completed(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a record with its missing inputs filled in, as far as they are known."""
        missing = [name for name in self._inputs if name not in record]
        if not missing:
            return record
        key = record.get(self._key)
        known = self.of(key) if isinstance(key, str | int) else {}
        found = dict(record)
        for name in missing:
            value = known.get(name)
            value = self._defaults.get(name) if value is None else value
            if value is not None:
                found[name] = value
        return found

    def of(self, key: Key) -> dict[str, Any]:
        """Return the values of an entity: from the gateway, else from its last response."""
        values = self._ask(key)
        if values is not None:
            self._keep(key, values)
            return values
        last = self.last(key)
        # A clock that was set back says nothing of the age.
        return {} if last is None or abs(last[1]) > self._max_age else last[0]

    def last(self, key: Key) -> tuple[dict[str, Any], float] | None:
        """Return the gateway's last response for an entity and its age in seconds, or None."""
        try:
            with self._lock, closing(self._open()) as database:
                row = database.execute(
                    "select told, at from seen where key = ?", (str(key),)
                ).fetchone()
            return None if row is None else (dict(json.loads(row[0])), time.time() - row[1])
        except (sqlite3.Error, ValueError):
            return None

    def _ask(self, key: Key) -> dict[str, Any] | None:
        settings = self._settings
        if settings is None or time.monotonic() < self._asked_again:
            return None
        url = (
            f"{settings.gateway.rstrip('/')}/features/{settings.deployment}/"
            f"{quote(str(key), safe='')}?{urlencode({'inputs': ','.join(self._inputs)})}"
        )
        try:
            request = urllib.request.Request(url, headers=settings.credentials())  # noqa: S310
            with self._opener.open(request, timeout=BUDGET_SECONDS) as answer:
                found = json.loads(answer.read(_MAX_BYTES))["features"]
            values = {name: found[name] for name in self._inputs if found.get(name) is not None}
            return values if self._holds(values) else None
        except urllib.error.HTTPError as error:
            if error.code == 404 and _names_the_key(error):
                return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        self._asked_again = time.monotonic() + PAUSE_SECONDS
        return None

    def _holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether all values satisfy the contract. Their texts are not logged."""
        for name, value in values.items():
            if not self._checks.hold(name, value):
                logger.warning("the gateway's value of %s breaks the contract: not used", name)
                return False
        return True

    def _keep(self, key: Key, values: Mapping[str, Any]) -> None:
        try:
            with self._lock, closing(self._open()) as database, database:
                database.execute(
                    "insert or replace into seen values (?, ?, ?)",
                    (str(key), json.dumps(values), time.time()),
                )
                database.execute(
                    "delete from seen where key in"
                    " (select key from seen order by at desc limit -1 offset ?)",
                    (KEPT,),
                )
        except sqlite3.Error:
            # A damaged cache or a full disk is no reason to fail the prediction.
            with suppress(OSError):
                self._file.unlink()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=1)
        database.execute(_TABLE)
        return database


def _names_the_key(answer: urllib.error.HTTPError) -> bool:
    """Return whether a 404 is about the entity, and not about the deployment or the path."""
    try:
        with answer:
            return "key" in dict(json.loads(answer.read(_MAX_BYTES)))
    except (OSError, ValueError, TypeError):
        return False


class GatewayReader:
    """The gateway in place of a feature database, for the model server's feature lookup."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="features")

    async def fetch(self, keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
        """Return the known values of each entity."""
        loop = asyncio.get_running_loop()
        distinct = list(dict.fromkeys(keys))
        found = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._features.of, key) for key in distinct)
        )
        return dict(zip(distinct, found, strict=True))

    def age(self, key: Key) -> float:
        """Return 0: what is known of a row's age decides whether it is returned at all."""
        return 0.0

    async def check(self) -> None:
        """Do nothing: a device may always be offline."""

    async def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
