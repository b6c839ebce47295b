"""A feature database that answers nobody is noticed without a request, and a slow one is not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fourways_api import EntityKey, Paths
from fourways_api.modes import FeatureLookup
from fourways_runtime.io.feature_store import FeatureMonitor, open_features
from fourways_runtime.io.feature_store.coalesced import CoalescedFeatures
from tests.kit.secret_files import secret_folder

LOOKUP = {"database": {"secretName": "crm"}, "table": "people", "timeout": "1s"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE people (id, age); INSERT INTO people VALUES (7, 30)")
    return path


@pytest.fixture
async def features(tmp_path: Path, database: Path) -> AsyncIterator[CoalescedFeatures]:
    secret_folder(tmp_path / "crm", uri=f"sqlite:///{database}")
    lookup = FeatureLookup.model_validate(LOOKUP)
    key = EntityKey(name="id", type="int64")
    opened = open_features(lookup, key, ["age"], Paths(secrets_root=str(tmp_path), deployment="m"))
    yield opened
    await opened.close()


def renamed(database: Path, before: str, after: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"ALTER TABLE {before} RENAME TO {after}")


async def test_two_failed_looks_are_a_fault_and_one_good_one_ends_it(
    features: CoalescedFeatures, database: Path
) -> None:
    monitor = FeatureMonitor(features, "crm")
    await monitor.look()
    assert monitor.fault is None
    renamed(database, "people", "elsewhere")
    await monitor.look()
    assert monitor.fault is None, "one look may be a slow one"
    await monitor.look()
    assert monitor.fault is not None
    assert monitor.fault.reason == "FeaturesUnavailable"
    assert str(monitor.fault) == "the feature database crm.db: no such table: people (Secret crm)"
    renamed(database, "elsewhere", "people")
    await monitor.look()
    assert monitor.fault is None


async def test_a_database_that_answers_requests_is_not_asked(
    features: CoalescedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = FeatureMonitor(features, "crm")
    asked: list[Any] = []

    async def ping() -> None:
        asked.append(None)

    monkeypatch.setattr(features, "ping", ping)
    assert await features.fetch([7]) == {7: {"age": 30}}
    await monitor.look()
    assert asked == []
    await monitor.look()
    assert asked == [None], "nobody asked for features since"


async def test_it_looks_on_whatever_happens(
    features: CoalescedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    async def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 4:
            raise asyncio.CancelledError

    async def ping() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(features, "ping", ping)
    with pytest.raises(asyncio.CancelledError):
        await FeatureMonitor(features, "crm", sleep).run()
    assert len(looks) == 4
