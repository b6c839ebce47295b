"""The feature database: keys into rows, many requests into few queries, and faults into words."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from fourways_api import EntityKey, InputField, Paths
from fourways_api.modes import FeatureLookup
from fourways_runtime.errors import ConfigError, FeaturesMismatch, FeaturesUnavailable
from fourways_runtime.io.feature_store import open_features
from fourways_runtime.io.feature_store.coalesced import CoalescedFeatures
from fourways_runtime.io.feature_store.observed import FeatureMetrics
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import FeatureReader, Row
from fourways_runtime.scoring.literals import from_json
from tests.kit.people import FIELDS
from tests.kit.secret_files import secret_folder
from tests.kit.waiting import turns, until_async
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded

TEXT = EntityKey(name="id")
WHOLE = EntityKey(name="id", type="int64")
TABLE = "CREATE TABLE people (id {key}, age integer, spend numeric, seen boolean, word text)"
ROWS = [("a", 30, 1.5, True, "x"), ("b", None, 2, False, None), ("12", 7, None, True, "ü")]


class Database:
    """A database with a table of people, and the Secret that names it."""

    def __init__(self, root: Path, uri: str) -> None:
        self.uri = uri
        self.paths = Paths(secrets_root=str(root / "secrets"))
        self.secret = root / "secrets" / "crm" / "uri"
        secret_folder(self.secret.parent, uri=uri + "\n")

    def run(self, *statements: str) -> None:
        if self.uri.startswith("sqlite"):
            with sqlite3.connect(self.uri.removeprefix("sqlite://")) as connection:
                for statement in statements:
                    connection.execute(statement)
            connection.close()
            return
        with psycopg.connect(self.uri, autocommit=True) as server:
            for statement in statements:
                server.execute(statement.encode())

    def fill(self, key: str = "text") -> None:
        self.run(TABLE.format(key=key))
        for row in ROWS if key == "text" else [(12, 7, None, True, "ü"), (2**40, 1, 1, True, "")]:
            values = ", ".join("NULL" if v is None else repr(v) for v in row)
            self.run(f"INSERT INTO people VALUES ({values})")  # noqa: S608

    @asynccontextmanager
    async def open(
        self,
        *inputs: str,
        key: EntityKey = TEXT,
        fields: tuple[InputField, ...] = (),
        registry: CollectorRegistry | None = None,
        **more: Any,
    ) -> AsyncIterator[FeatureReader]:
        settings = {"database": {"secretName": "crm"}, "timeout": "5s"} | more
        if "query" not in settings:
            settings.setdefault("table", "people")
        lookup = FeatureLookup.model_validate(settings)
        reader = open_features(lookup, key, inputs, self.paths, registry, fields)
        try:
            yield reader
        finally:
            await reader.close()


@pytest.fixture(params=["postgres", "sqlite"])
def database(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres: Server,
) -> Database:
    here = request.param == "sqlite"
    return Database(tmp_path, f"sqlite://{tmp_path}/crm.db" if here else postgres.database())


@pytest.fixture
def server(tmp_path: Path, postgres: Server) -> Database:
    return Database(tmp_path, postgres.database())


# ---------------------------------------------------------------- rows


async def test_rows_by_key_with_what_is_missing_left_out(database: Database) -> None:
    database.fill()
    async with database.open("age", "spend", "seen", "word", fields=FIELDS) as reader:
        await reader.check()
        found = await reader.fetch(["a", "b", "nobody", "12", "\0", "a"])
    assert found == {
        "a": {"age": 30, "spend": 1.5, "seen": True, "word": "x"},
        "b": {"age": None, "spend": 2, "seen": False, "word": None},
        "12": {"age": 7, "spend": None, "seen": True, "word": "ü"},
    }


async def test_a_time_limit_that_no_database_knows_is_its_longest(database: Database) -> None:
    database.fill()
    async with database.open("age", timeout="999999h") as reader:
        await reader.check()
        assert await reader.fetch(["a"]) == {"a": {"age": 30}}


async def test_whole_keys_as_numbers_or_as_text(database: Database) -> None:
    database.fill("bigint")
    async with database.open("age", key=WHOLE) as reader:
        await reader.check()
        assert await reader.fetch([12]) == {12: {"age": 7}}
        assert await reader.fetch([2**40, "12", "x", 2**70]) == {
            2**40: {"age": 1},
            "12": {"age": 7},
        }


async def test_a_query_gives_what_a_table_does_not(database: Database) -> None:
    database.fill()
    database.run("CREATE TABLE visits (person text, n integer)")
    database.run("INSERT INTO visits VALUES ('a', 2), ('a', 3), ('b', 1), ('c', 9)")
    query = (
        "SELECT id, age, sum(n) AS visits, 7 %% 4 AS rest FROM people JOIN visits ON person = id"
        " WHERE id = ANY(%(keys)s) GROUP BY id, age"
    )
    async with database.open("visits", "rest", query=query) as reader:
        await reader.check()
        assert await reader.fetch(["a", "c"]) == {"a": {"visits": 5, "rest": 3}}


async def test_lists_are_lists(database: Database) -> None:
    kind = "TEXT" if database.uri.startswith("sqlite") else "real[]"
    value = "[1.5, 2]" if kind == "TEXT" else "{1.5,2}"
    database.run(f"CREATE TABLE people (id text, grid {kind})")
    database.run(f"INSERT INTO people VALUES ('a', '{value}')")  # noqa: S608
    async with database.open("grid", fields=FIELDS) as reader:
        await reader.check()
        assert await reader.fetch(["a"]) == {"a": {"grid": [1.5, 2.0]}}


async def test_nothing_can_be_written(database: Database) -> None:
    database.fill()
    if database.uri.startswith("sqlite"):
        query = "UPDATE people SET age = 99 WHERE id = ANY(%(keys)s) RETURNING id, age"
    else:
        database.run(
            "CREATE FUNCTION spoil() RETURNS int LANGUAGE sql AS"
            " 'UPDATE people SET age = 99 RETURNING 1'"
        )
        query = "SELECT id, spoil() AS age FROM people WHERE id = ANY(%(keys)s)"
    async with database.open("age", query=query) as reader:
        with pytest.raises(FeaturesUnavailable, match="read"):
            await reader.fetch(["a"])
    async with database.open("age") as reader:
        assert await reader.fetch(["a"]) == {"a": {"age": 30}}


async def test_a_query_that_undoes_the_session_s_setting_still_only_reads(
    server: Database,
) -> None:
    server.fill()
    server.run("CREATE FUNCTION spoil() RETURNS int LANGUAGE sql AS 'DELETE FROM people; SELECT 9'")
    writable = "current_setting('transaction_read_only') = 'off'"
    query = (
        f"SELECT id, CASE WHEN {writable} THEN spoil() ELSE age END AS age,"  # noqa: S608
        " set_config('default_transaction_read_only', 'off', false),"
        " set_config('statement_timeout', '0', false)"
        " FROM people WHERE id = ANY(%(keys)s)"
    )
    async with server.open("age", query=query) as reader:
        await reader.check()
        for _ in range(8):  # the statements after the first of each session
            assert await reader.fetch(["a"]) == {"a": {"age": 30}}


# ---------------------------------------------------------------- faults


async def test_every_missing_column_is_named(database: Database) -> None:
    database.fill()
    async with database.open("age", "height", "weight") as reader:
        with pytest.raises(FeaturesMismatch, match="table people has no columns height, weight"):
            await reader.check()
    query = "SELECT id FROM people WHERE id = ANY(%(keys)s)"
    async with database.open("age", query=query) as reader:
        with pytest.raises(FeaturesMismatch, match="the query has no column age; found: id"):
            await reader.check()


async def test_a_table_that_is_not_there(database: Database) -> None:
    database.run("CREATE TABLE other (id text)")
    async with database.open("age") as reader:
        with pytest.raises(FeaturesMismatch, match="people"):
            await reader.check()


async def test_columns_of_types_that_do_not_fit(server: Database) -> None:
    server.run("CREATE TABLE people (id text, age text, seen integer, word real, grid real)")
    async with server.open("age", "seen", "word", "grid", fields=FIELDS) as reader:
        with pytest.raises(FeaturesMismatch) as caught:
            await reader.check()
    assert str(caught.value) == (
        "features: table people: column age is text, the input is int32; column seen is int4, the"
        " input is bool; column word is float4, the input is string; column grid is float4, the"
        " input is a list of shape [2]"
    )
    server.run("DROP TABLE people", "CREATE TABLE people (id integer, age integer)")
    async with server.open("age") as reader:
        with pytest.raises(FeaturesMismatch, match=r"operator does not exist: integer = text"):
            await reader.check()


async def test_bytes_dates_and_times_are_what_a_request_would_hold(server: Database) -> None:
    kinds = {"photo": "bytes", "at": "timestamp_us", "day": "date", "count": "timestamp_s"}
    fields = tuple(InputField.model_validate({"name": n, "type": k}) for n, k in kinds.items())
    server.run(
        "CREATE TABLE people (id text, photo bytea, at timestamptz, day date, count bigint)",
        r"INSERT INTO people VALUES ('a', '\x89504e47', '2026-01-31 12:30:05.25Z', "
        "'2026-01-31', 7)",
    )
    async with server.open(*kinds, fields=fields) as reader:
        await reader.check()
        found = await reader.fetch(["a"])
    values = {field.name: from_json(field.type, found["a"][field.name])[0] for field in fields}
    moment = 1_769_862_605_250_000
    assert values == {"photo": b"\x89PNG", "at": moment, "day": 20_484, "count": 7}
    server.run("ALTER TABLE people ALTER at TYPE boolean USING true, ALTER photo TYPE text")
    async with server.open(*kinds, fields=fields) as reader:
        with pytest.raises(FeaturesMismatch, match="column at is bool, the input is timestamp_us"):
            await reader.check()


async def test_a_moment_that_python_cannot_hold_costs_its_own_entity(server: Database) -> None:
    kinds = {"at": "timestamp_us", "zoned": "timestamp_us", "day": "date"}
    fields = tuple(InputField.model_validate({"name": n, "type": k}) for n, k in kinds.items())
    server.run(
        "CREATE TABLE people (id text, at timestamp, zoned timestamptz, day date)",
        "INSERT INTO people VALUES ('a', '2026-01-31', '2026-01-31Z', '2026-01-31'), "
        "('b', 'infinity', '-infinity', 'infinity'), ('c', '4713-01-01 BC', '20000-01-01', NULL)",
    )
    async with server.open(*kinds, fields=fields) as reader:
        found = await reader.fetch(["a", "b", "c"])
    faults = {
        (key, f.name): from_json(f.type, found[key][f.name])[1]
        for key in "abc"
        for f in fields
        if f.name in found[key]
    }
    told = [at for at, fault in faults.items() if fault and "outside the years 1 to 9999" in fault]
    assert told == [("b", "at"), ("b", "zoned"), ("b", "day"), ("c", "at"), ("c", "zoned")]


async def test_addresses_that_make_no_sense(database: Database) -> None:
    for text, told in (("http://x", "neither"), ("", "is empty")):
        database.secret.write_text(text)
        with pytest.raises(ConfigError, match=told):
            async with database.open("age"):
                pass
    database.secret.unlink()
    with pytest.raises(ConfigError, match="Secret crm, key uri: No such file"):
        async with database.open("age"):
            pass
    with pytest.raises(ConfigError, match="does not use"):
        async with database.open("age", query="SELECT 1"):
            pass


async def test_a_database_that_is_away_is_told_without_its_password(
    server: Database,
    postgres: Server,
) -> None:
    server.secret.write_text(postgres.uri("nowhere"))
    async with server.open("age", timeout="300ms") as reader:
        with pytest.raises(FeaturesUnavailable, match='database "nowhere" does not exist') as told:
            await reader.check()
        assert "s3cret" not in str(told.value)
        with pytest.raises(FeaturesUnavailable):
            await reader.fetch(["a"])
        # The Secret is rotated: the next connection goes to the right place.
        server.fill()
        server.secret.write_text(server.uri)
        found = await until_async(
            lambda: reader.fetch(["a"]), "the new address is read", ignoring=FeaturesUnavailable
        )
        assert found == {"a": {"age": 30}}


async def test_connections_that_were_cut_are_replaced(
    server: Database,
    postgres: Server,
) -> None:
    server.fill()
    async with server.open("age") as reader:
        await reader.fetch(["a"])
        with psycopg.connect(postgres.uri(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (server.uri.partition("?")[0].rpartition("/")[2],),
            )
        assert await reader.fetch(["a"]) == {"a": {"age": 30}}


async def test_a_table_altered_meanwhile_is_read_anew(server: Database) -> None:
    server.fill()
    async with server.open("age") as reader:
        assert await reader.fetch(["a"]) == {"a": {"age": 30}}
        server.run("ALTER TABLE people ALTER age TYPE numeric(6, 2)")
        assert await reader.fetch(["a"]) == {"a": {"age": 30}}


async def test_a_database_that_hangs_costs_the_budget_and_no_more(server: Database) -> None:
    server.fill()
    registry = CollectorRegistry()
    query = "SELECT id, age, pg_sleep(5)::text FROM people WHERE id = ANY(%(keys)s)"
    async with server.open("age", query=query, timeout="60ms", registry=registry) as reader:
        await reader.check()
        started = asyncio.get_running_loop().time()
        with pytest.raises(FeaturesUnavailable, match=r"no response in 60 ms|statement timeout"):
            await reader.fetch(["a"])
        # The query itself takes 5 s, and a busy machine takes longer than 60 ms to say so.
        assert asyncio.get_running_loop().time() - started < 4
    failures = [
        registry.get_sample_value("fourways_feature_failures_total", {"reason": reason}) or 0
        for reason in ("timeout", "unavailable")
    ]
    assert sum(failures) == 1


# ---------------------------------------------------------------- together


class Asked:
    """A database that notes what it is asked, and answers when it is let."""

    concurrency = 2

    def __init__(self) -> None:
        self.asked: list[list[Key]] = []
        self.go = asyncio.Event()

    async def query(self, keys: list[Key]) -> dict[Key, Row]:
        self.asked.append(keys)
        await self.go.wait()
        return {key: {"age": 1} for key in keys if key != "nobody"}

    async def check(self) -> None: ...

    async def close(self) -> None: ...


async def test_one_turn_is_one_query_and_equal_keys_are_asked_for_once() -> None:
    registry, source = CollectorRegistry(), Asked()
    source.go.set()
    reader = CoalescedFeatures(source, 1, FeatureMetrics(registry))
    first, second = await asyncio.gather(reader.fetch(["a", "nobody"]), reader.fetch(["b", "a"]))
    assert source.asked == [["a", "nobody", "b"]]
    assert "a" in first
    assert {"a", "b"} <= second.keys()
    await reader.close()
    for name, value in (("lookups", 1), ("entities", 3), ("misses", 1)):
        assert registry.get_sample_value(f"fourways_feature_{name}_total") == value
    assert registry.get_sample_value("fourways_feature_seconds_count") == 1


async def test_what_comes_while_all_places_are_taken_waits_as_one_batch() -> None:
    source = Asked()
    reader = CoalescedFeatures(source, 5, FeatureMetrics(None))
    asked = []
    for turn in range(6):
        asked.append(asyncio.ensure_future(reader.fetch([turn])))
        await turns(3)
    assert source.asked == [[0], [1]]
    source.go.set()
    await asyncio.gather(*asked)
    assert source.asked == [[0], [1], [2, 3, 4, 5]]
    await reader.close()


async def test_the_budget_runs_while_a_request_waits_for_its_turn() -> None:
    source = Asked()
    reader = CoalescedFeatures(source, 0.05, FeatureMetrics(None))
    late = [asyncio.ensure_future(reader.fetch([turn])) for turn in range(1)]
    await turns()
    late += [asyncio.ensure_future(reader.fetch([turn])) for turn in range(2000, 8000)]
    outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {FeaturesUnavailable}
    assert {str(outcome) for outcome in outcomes} == {"the feature database: no response in 50 ms"}
    await reader.close()


async def test_closing_fails_what_waits() -> None:
    reader = CoalescedFeatures(Asked(), 5, FeatureMetrics(None))
    waiting = asyncio.ensure_future(reader.fetch(["a"]))
    await turns()
    await reader.close()
    with pytest.raises(FeaturesUnavailable, match="stopping"):
        await waiting
