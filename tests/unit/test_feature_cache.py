"""Looked-up rows that are used again: how long, for whom, and what is never kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fourways_runtime.errors import FeaturesUnavailable
from fourways_runtime.io.feature_store import cached
from fourways_runtime.io.feature_store.cached import CachedFeatures
from fourways_runtime.io.feature_store.observed import FeatureMetrics
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import Row
from tests.kit.waiting import turns

TTL = 10.0


class Database:
    """Counts its answers into the rows; has no row for "nobody"; may fail, or be held back."""

    concurrency = 2

    def __init__(self) -> None:
        self.asked: list[list[Key]] = []
        self.fails = False
        self.go = asyncio.Event()
        self.go.set()
        self.row: Any = 0

    async def query(self, keys: list[Key]) -> dict[Key, Row]:
        self.asked.append(keys)
        await self.go.wait()
        if self.fails:
            raise FeaturesUnavailable("gone")
        return {key: {"age": self.row} for key in keys if key != "nobody"}

    async def check(self) -> None: ...

    async def close(self) -> None: ...


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.database = Database()
        self.registry = CollectorRegistry()
        self.features = CachedFeatures(
            self.database, 5, FeatureMetrics(self.registry), TTL, lambda: self.now
        )

    @property
    def hits(self) -> float | None:
        return self.registry.get_sample_value("fourways_feature_cached_entities_total")


@pytest.fixture
async def world() -> Any:
    made = World()
    yield made
    await made.features.close()


async def test_a_row_is_used_until_it_is_too_old(world: World) -> None:
    assert await world.features.fetch(["a", "b"]) == {"a": {"age": 0}, "b": {"age": 0}}
    world.database.row, world.now = 1, 100 + TTL - 0.1
    assert await world.features.fetch(["a", "c", "a"]) == {"a": {"age": 0}, "c": {"age": 1}}
    assert (world.features.age("a"), world.features.age("c")) == (pytest.approx(TTL - 0.1), 0)
    world.now = 100 + TTL
    assert await world.features.fetch(["a", "c"]) == {"a": {"age": 1}, "c": {"age": 1}}
    assert world.database.asked == [["a", "b"], ["c"], ["a"]]
    assert world.hits == 2


async def test_a_key_that_is_being_looked_up_is_not_looked_up_again(world: World) -> None:
    world.database.go.clear()
    first = asyncio.ensure_future(world.features.fetch(["a"]))
    await turns()
    second = asyncio.ensure_future(world.features.fetch(["a", "b"]))
    await turns()
    first.cancel()
    await turns()
    world.database.go.set()
    assert await second == {"a": {"age": 0}, "b": {"age": 0}}
    assert world.database.asked == [["a"], ["b"]]
    assert first.cancelled()


async def test_a_key_without_a_row_is_looked_up_each_time(world: World) -> None:
    for _ in range(2):
        assert await world.features.fetch(["nobody"]) == {}
    assert world.database.asked == [["nobody"], ["nobody"]]


async def test_a_failure_reaches_all_who_wait_and_is_not_kept(world: World) -> None:
    world.database.fails = True
    both = [world.features.fetch(["a"]), world.features.fetch(["a"])]
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["gone", "gone"]
    world.database.fails = False
    assert await world.features.fetch(["a"]) == {"a": {"age": 0}}
    assert world.database.asked == [["a"], ["a"]]


async def test_rows_that_are_kept_are_answered_while_the_database_is_away(world: World) -> None:
    await world.features.fetch(["a"])
    world.database.fails = True
    assert await world.features.fetch(["a"]) == {"a": {"age": 0}}
    with pytest.raises(FeaturesUnavailable, match="gone"):
        await world.features.fetch(["a", "b"])


async def test_what_is_kept_is_bounded_by_its_values(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "MAX_VALUES", 12)
    world.database.row = [1, 2, [3, "x" * 64]]
    for key in "abc":
        await world.features.fetch([key])
    world.database.asked.clear()
    await world.features.fetch(["b", "c"])
    await world.features.fetch(["a"])
    assert world.database.asked == [["b"], ["a"]]
