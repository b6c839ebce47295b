"""Rows of a PostgreSQL query: every type, every row once, and what is said of what does not fit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.errors import ConfigError, FetchFailed, QueryRefused, SourceError
from fourways_runtime.io.sources import BATCH_ROWS, open_table
from fourways_runtime.io.sources.watermarks import highest
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.splits import Newer, Split
from tests.kit.secret_files import secret_folder
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded

INPUTS = [
    {"name": "age", "type": "int32"},
    {"name": "worth", "type": "float64", "nullable": True},
    {"name": "plan", "type": "string", "nullable": True},
    {"name": "old", "type": "bool"},
    {"name": "exact", "type": "int64"},
    {"name": "pair", "type": "float32", "shape": [2]},
]
CONTRACT = Contract.model_validate(
    {"entityKey": {"name": "id"}, "inputs": INPUTS, "outputs": [{"name": "y", "type": "float32"}]}
)
SQL = "SELECT * FROM people -- all of them"


class Rig:
    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        secret_folder(folder / "db", uri=uri)
        self.paths = Paths(secrets_root=str(folder))

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(statement.encode())

    def open(self, query: str = SQL, by: str | None = "n", more: tuple[str, ...] = ()) -> Any:
        told = {"database": {"secretName": "db"}, "sql": query} | ({"splitBy": by} if by else {})
        source = BatchSource.model_validate({"query": told})
        return open_table(source, CONTRACT, policy=FetchPolicy(), paths=self.paths, more=more)


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
def rig(database: str, tmp_path: Path) -> Rig:
    made = Rig(database, tmp_path)
    made.sql("DROP TABLE IF EXISTS people")
    made.sql(
        "CREATE TABLE people (n bigint, id varchar(30), age smallint, worth float4, plan text, "
        "old bool, exact numeric, pair float8[], changed timestamptz)"
    )
    return made


def people(rig: Rig, values: str) -> None:
    columns = "n, 'k' || n, n % 90, n / 2.0, 'p', true, n, ARRAY[n, 0.5]"
    changed = "'2026-01-01Z'::timestamptz + n % 100000 * interval '1 s'"
    rig.sql(f"INSERT INTO people SELECT {columns}, {changed} FROM {values} AS v (n)")  # noqa: S608


def test_a_rotated_secret_is_read_again_and_a_refused_login_is_named(rig: Rig) -> None:
    people(rig, "generate_series(1, 10)")
    table = rig.open()
    table.splits(1000)
    secret = Path(rig.paths.secrets_root) / "db" / "uri"
    secret.write_text(rig.uri.replace("tester:s3cret", "nobody:s3cret"))
    rig.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with pytest.raises(FetchFailed):
        table.splits(1000)  # the connection is gone
    with pytest.raises(FetchFailed, match=r"refuses the login in the Secret db: .*nobody") as error:
        table.splits(1000)
    assert "s3cret" not in str(error.value)
    secret.write_text(rig.uri)
    assert table.splits(1000)


def keys(table: Any, splits: list[Split], newer: Newer | None = None) -> list[str]:
    return [
        key.decode()
        for split in splits
        for chunk in table.read(split, newer)
        for key in chunk.batch.column("id").to_pylist()
    ]


def test_every_type_comes_through(rig: Rig) -> None:
    rig.sql(
        "INSERT INTO people VALUES (1, 'a', 30, 0.5, 'ü', true, 9007199254740993, '{1,2}', now()),"
        "(2, 'b', 31, NULL, NULL, false, -5, '{3,4}', NULL), (3, 'c', NULL, 1, '', true, 1, "
        "'{1}', now()), (4, 'd', 1, 'NaN', 'x', true, 1.5, '{1,2}', now())"
    )
    table = rig.open()
    (split,) = table.splits(10)
    (chunk,) = table.read(split)
    records, rejects = Decoder(CONTRACT).decode(chunk.batch, chunk.rows)
    assert records.keys.tolist() == ["a", "b"]
    assert records.columns["plan"].tolist() == ["ü", ""]
    assert records.columns["exact"].tolist() == [9007199254740993, -5]
    assert records.columns["pair"].tolist() == [[1, 2], [3, 4]]
    assert records.columns["worth"][0] == 0.5
    assert records.columns["old"].tolist() == [True, False]
    told = {reject.key: reject.field for reject in rejects}
    assert told == {"c": "age", "d": "exact"}


@pytest.mark.parametrize(
    "values",
    [
        "generate_series(1, 1000)",
        "generate_series(-9223372036854775807, 9223372036854775000, 18446744073709551)",
        "(SELECT power(2, n % 60)::bigint + n FROM generate_series(1, 1000) n)",
        "(SELECT 7::bigint FROM generate_series(1, 50))",
        "(SELECT CASE WHEN n % 20 = 0 THEN n ELSE 7 END FROM generate_series(1, 1000) n)",
        "(SELECT CASE WHEN n % 3 = 0 THEN NULL ELSE n END FROM generate_series(1, 100) n)",
    ],
)
@pytest.mark.parametrize("rows", [7, 5000])
def test_ranges_cover_every_row_once_however_keys_lie(rig: Rig, values: str, rows: int) -> None:
    people(rig, values)
    query = SQL.replace("*", "n, coalesce(id, 'none') AS id, age, worth, plan, old, exact, pair")
    table = rig.open(query)
    splits = table.splits(rows)
    with psycopg.connect(rig.uri) as connection:
        expected = sorted(
            row[0] for row in connection.execute("SELECT coalesce(id, 'none') FROM people")
        )
    assert sorted(keys(table, splits)) == expected
    assert table.total_rows == sum(split.rows for split in splits) == len(expected)
    assert splits == rig.open(query).splits(rows)
    if values == "generate_series(1, 1000)":
        assert max(split.rows for split in splits) <= rows
    assert max(split.rows for split in splits) <= max(4 * rows, 50)


def test_one_value_with_most_rows_is_cut_by_the_entity_key(rig: Rig) -> None:
    people(rig, "generate_series(1, 1000)")
    query = "SELECT *, CASE WHEN n % 20 = 0 THEN n ELSE 7 END AS uneven FROM people"
    table = rig.open(query, by="uneven")
    splits = table.splits(50)
    found = [keys(table, [split]) for split in splits]
    assert sorted(key for part in found for key in part) == sorted(f"k{n}" for n in range(1, 1001))
    assert max(map(len, found)) < 100
    assert any(", part 2 of " in split.file for split in splits)


def test_another_worker_reads_its_range_and_rows_added_since_are_the_next_runs(rig: Rig) -> None:
    people(rig, "generate_series(1, 100)")
    splits = rig.open().splits(30)
    people(rig, "generate_series(101, 200)")
    assert keys(rig.open(), splits[::-1]) == [
        f"k{n}"
        for split in splits[::-1]
        for n in range(split.detail["from"], split.detail["to"] + 1)
    ]


def test_without_ranges_one_statement_reads_all_in_the_querys_order(rig: Rig) -> None:
    people(rig, f"generate_series(1, {BATCH_ROWS + 10})")
    table = rig.open("SELECT * FROM people ORDER BY n DESC;", by=None)
    (split,) = table.splits(10)
    chunks = list(table.read(split))
    assert [chunk.batch.num_rows for chunk in chunks] == [BATCH_ROWS, 10]
    assert chunks[0].batch.column("id")[0].as_py() == f"k{BATCH_ROWS + 10}".encode()
    assert [int(row) for chunk in chunks for row in chunk.rows] == list(range(BATCH_ROWS + 10))


@pytest.mark.parametrize(
    ("column", "value"), [("changed", "2026-01-01T00:01:30+00:00"), ("n", 90), ("worth", 45.0)]
)
def test_only_newer_rows_are_asked_for(rig: Rig, column: str, value: Any) -> None:
    people(rig, "generate_series(1, 100)")
    rig.sql(f"UPDATE people SET {column} = NULL WHERE id = 'k5'")  # noqa: S608
    table = rig.open(more=(column,), by=None)
    found = keys(table, table.splits(10), Newer(column, value))
    assert sorted(found) == sorted(["k5", *(f"k{n}" for n in range(90, 101))])


@pytest.mark.parametrize(("old", "new"), [("2Zabc", "2aXYZ"), ("a1", "B2")])
def test_a_text_is_new_in_the_order_of_its_bytes_or_of_the_database(
    rig: Rig, old: str, new: str
) -> None:
    """Ids such as KSUIDs grow by their bytes; the database's order may ignore case."""
    people(rig, "generate_series(1, 2)")
    rig.sql('ALTER TABLE people ALTER COLUMN plan TYPE text COLLATE "en-US-x-icu"')
    rig.sql(f"UPDATE people SET plan = '{old}'; INSERT INTO people SELECT 9, 'k9', 1, 1, '{new}'")  # noqa: S608
    table = rig.open(more=("plan",), by=None)
    found = keys(table, table.splits(10), Newer("plan", old))
    assert sorted(found) == ["k1", "k2", "k9"]


def test_a_uuid_is_compared_with_any_text(rig: Rig) -> None:
    """The column may have been text in the run before."""
    people(rig, "generate_series(1, 2)")
    uuid = "lpad(n::text, 32, '0')::uuid"
    table = rig.open(
        f"SELECT id, age, worth, old, exact, pair, {uuid} AS plan FROM people",  # noqa: S608
        more=("plan",),
        by=None,
    )
    splits = table.splits(10)
    assert keys(table, splits, Newer("plan", f"{2:08}-{0:04}-{0:04}-{0:04}-{0:012}")) == []
    assert keys(table, splits, Newer("plan", "00")) == ["k1", "k2"]
    assert keys(table, splits, Newer("plan", "z")) == []


def test_a_number_in_an_array_that_is_none_is_missing(rig: Rig) -> None:
    people(rig, "generate_series(1, 2)")
    rig.sql("UPDATE people SET pair = '{NaN,1}' WHERE id = 'k1'")
    table = rig.open()
    (chunk,) = table.read(table.splits(10)[0])
    _, rejects = Decoder(CONTRACT).decode(chunk.batch, chunk.rows)
    assert [str(reject) for reject in rejects] == ["pair: element [0]: missing"]


def test_an_infinite_time_is_refused_and_is_no_watermark(rig: Rig) -> None:
    people(rig, "generate_series(1, 3)")
    rig.sql("UPDATE people SET changed = 'infinity' WHERE id = 'k2'")
    table = rig.open(more=("changed",), by=None)
    (chunk,) = table.read(table.splits(10)[0], Newer("changed", "2026-01-01T00:00:03+00:00"))
    assert sorted(chunk.batch.column("id").to_pylist()) == [b"k2", b"k3"]
    assert highest(chunk.batch.column("changed")) == "2026-01-01T00:00:03+00:00"


def test_a_time_reads_as_one(rig: Rig) -> None:
    people(rig, "generate_series(1, 3)")
    table = rig.open(more=("changed",))
    (chunk,) = table.read(table.splits(10)[0])
    assert chunk.batch.column("changed")[2].as_py().isoformat() == "2026-01-01T00:00:03+00:00"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT id, n FROM people", "the source's query: column age is missing; the file has"),
        ("SELECT p.*, 1 AS id FROM people p", "column id occurs 2 times"),
        (
            SQL.replace("*", "n, id, age::text, worth, plan, old, exact, pair"),
            "column age is text, the contract says int32",
        ),
        (
            SQL.replace("*", "n, id, age, worth, plan, old, exact, 1.0 AS pair"),
            "column pair is numeric, the contract says float32 of shape [2]",
        ),
        (
            SQL.replace("*", "id, age, worth, plan, old, exact, pair"),
            "column n is missing; splitBy needs a whole number",
        ),
        ("SELEC", "PostgreSQL can prepare (syntax error"),
        ("SELECT * FROM gone", 'relation "gone" does not exist'),
        ("DELETE FROM people RETURNING *", "the source database: "),
    ],
)
def test_what_does_not_fit_is_named_before_the_first_row(rig: Rig, query: str, told: str) -> None:
    with pytest.raises(SourceError) as error:
        rig.open(query).splits(10)
    assert told.replace("the file has", "") in str(error.value).replace("the file has", "")


def test_a_column_retyped_or_a_table_dropped_meanwhile_is_named(rig: Rig) -> None:
    people(rig, "generate_series(1, 100)")
    splits = rig.open().splits(30)
    rig.sql("ALTER TABLE people ALTER age TYPE int")
    with pytest.raises(SourceError, match="changed while it was read: age int2 is now age int4"):
        keys(rig.open(), splits)
    rig.sql("DROP TABLE people")
    with pytest.raises(SourceError, match='relation "people" does not exist'):
        keys(rig.open(), splits)


def test_an_error_in_a_row_is_told_and_the_connection_is_good_again(rig: Rig) -> None:
    people(rig, "generate_series(0, 10)")
    table = rig.open(SQL.replace("*", "n, id, 1 / n::int AS age, worth, plan, old, exact, pair"))
    splits = table.splits(100)
    with pytest.raises(SourceError, match="division by zero"):
        keys(table, splits)
    rig.sql("DELETE FROM people WHERE n = 0")
    assert len(keys(table, splits)) == 10


def test_a_database_that_is_away_is_worth_another_try(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fourways_runtime.io.sources.query_table.CONNECT_SECONDS", 0.0)
    (tmp_path / "db" / "uri").write_text("postgresql://tester:s3cret@/t?host=/nowhere")
    with pytest.raises(FetchFailed, match="the source database: ") as error:
        rig.open().splits(10)
    assert "s3cret" not in str(error.value)
    (tmp_path / "db" / "uri").unlink()
    with pytest.raises(ConfigError, match="Secret db, key uri: No such file"):
        rig.open().splits(10)


@pytest.mark.parametrize(
    ("kind", "cell", "told"),
    [
        ("int64", str(2**53 + 1), 2**53 + 1),
        ("int64", f"{2**53 + 1}.0", 2**53 + 1),
        ("int64", str(2**63 - 1), 2**63 - 1),
        ("int64", str(2**63), f"{2**63} is outside int64 ({-(2**63)} to {2**63 - 1})"),
        (
            "int64",
            str(-(2**63) - 1),
            f"{-(2**63) - 1} is outside int64 ({-(2**63)} to {2**63 - 1})",
        ),
        ("int64", "1.5", "1.5 is not a whole number"),
        ("int64", "NaN", "missing"),
        ("float64", str(2**53 + 1), f"{2**53 + 1} would be rounded in float64"),
        ("float32", "16777217", "16777217 would be rounded in float32"),
        ("float64", "0.1", 0.1),
        ("float64", "NaN", "missing"),
    ],
)
def test_numeric_keeps_every_digit_and_is_judged_as_everywhere(
    rig: Rig, kind: str, cell: str, told: Any
) -> None:
    """As in tests/unit/test_one_judgement.py."""
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": kind}],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )
    query = f"SELECT 'k' AS id, '{cell}'::numeric AS x"
    source = BatchSource.model_validate({"query": {"database": {"secretName": "db"}, "sql": query}})
    table = open_table(source, contract, policy=FetchPolicy(), paths=rig.paths)
    (chunk,) = table.chunks()
    records, rejects = Decoder(contract).decode(chunk.batch, chunk.rows)
    if isinstance(told, str):
        assert [reject.reason for reject in rejects] == [told]
    else:
        assert records.columns["x"].tolist() == [told]


HONEST = "SELECT n, id, age, worth, plan, old, exact, pair FROM people"


@pytest.mark.parametrize(
    "query",
    [
        HONEST + ") AS q LIMIT 0; COMMIT; BEGIN READ WRITE; UPDATE people SET worth = 999;"  # noqa: S608
        " COMMIT; BEGIN; SELECT * FROM (" + HONEST,
        HONEST + ") AS q LIMIT 0; ROLLBACK; DELETE FROM people; SELECT * FROM (" + HONEST,  # noqa: S608
        HONEST + "; DELETE FROM people",  # noqa: S608
        HONEST + ") AS q --",
        HONEST + ") TO STDOUT; DELETE FROM people; COPY (" + HONEST,  # noqa: S608
        HONEST + " /*",
        HONEST + " WHERE plan = $$",
        HONEST + " WHERE id = $1",
        "COMMIT",
        "SET ROLE postgres",
        "COPY people TO PROGRAM 'touch /tmp/x'",
        "DELETE FROM people",
        " ; ",
    ],
)
@pytest.mark.parametrize("by", ["n", None])
def test_a_query_is_one_statement(rig: Rig, query: str, by: str | None) -> None:
    people(rig, "generate_series(1, 3)")
    with pytest.raises(QueryRefused, match="write a single SELECT"):
        rig.open(query, by).splits(10)
    assert untouched(rig)


def untouched(rig: Rig) -> bool:
    with psycopg.connect(rig.uri) as connection:
        found = connection.execute("SELECT count(*), sum(worth) FROM people").fetchone()
    return found == (3, 3.0)


@pytest.mark.parametrize(
    "query",
    [
        "WITH d AS (DELETE FROM people RETURNING *) SELECT * FROM d",
        "DELETE FROM people RETURNING *",
        "UPDATE people SET worth = 999 RETURNING *",
        HONEST + " FOR UPDATE",
        HONEST + " WHERE set_config('transaction_read_only', 'off', true) = 'off'",
    ],
)
def test_a_query_only_reads(rig: Rig, query: str) -> None:
    people(rig, "generate_series(1, 3)")
    with pytest.raises(SourceError):  # noqa: PT012  (some are refused when they are described)
        table = rig.open(query)
        keys(table, table.splits(10))
    assert untouched(rig)


def test_a_write_is_not_tried_again(rig: Rig) -> None:
    people(rig, "generate_series(1, 3)")
    does = "'DELETE FROM people; SELECT 1'"
    rig.sql("CREATE OR REPLACE FUNCTION spoil() RETURNS int LANGUAGE sql AS " + does)
    table = rig.open(HONEST + " WHERE spoil() = 1", None)
    splits = table.splits(10)
    with pytest.raises(QueryRefused, match="read-only transaction; only queries that read"):
        keys(table, splits)


def test_what_a_read_only_transaction_permits_is_rolled_back(rig: Rig) -> None:
    """PostgreSQL 15 creates large objects in it."""
    people(rig, "generate_series(1, 3)")
    table = rig.open(HONEST + " WHERE lo_create(0) > 0", None)
    with suppress(SourceError):
        keys(table, table.splits(10))
    with psycopg.connect(rig.uri) as connection:
        count = "SELECT count(*) FROM pg_largeobject_metadata"
        assert connection.execute(count).fetchone() == (0,)


def test_a_setting_of_the_session_changes_nothing(rig: Rig) -> None:
    """With the setting off, a backslash would hide the quote after it."""
    people(rig, "generate_series(1, 3)")
    off = "set_config('standard_conforming_strings', 'off', false)"
    hidden = r"'\\' || ') AS q; DELETE FROM people; --'"
    table = rig.open(HONEST + " WHERE " + off + " <> " + hidden)
    assert len(keys(table, table.splits(1))) == 3
    assert untouched(rig)


@pytest.mark.parametrize("query", [HONEST + ";", HONEST + " ; ", "TABLE people", SQL])
def test_honest_queries_are_run(rig: Rig, query: str) -> None:
    people(rig, "generate_series(1, 3)")
    table = rig.open(query)
    assert len(keys(table, table.splits(1))) == 3


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("plan::int", "invalid input syntax for type integer"),
        ("extract(year FROM plan::date)::int", "invalid input syntax for type date"),
        ("(('{' || plan)::int[])[1]", "malformed array literal"),
        ("(length(plan) * 10000)::smallint", "smallint out of range"),
    ],
)
def test_an_error_over_a_value_does_not_quote_it(rig: Rig, column: str, said: str) -> None:
    people(rig, "generate_series(1, 3)")
    rig.sql("UPDATE people SET plan = 'c4n4ry', id = 'c4n4ry'")
    table = rig.open(SQL.replace("*", f"n, id, {column} AS age, worth, plan, old, exact, pair"))
    with pytest.raises(SourceError, match=said) as caught:
        keys(table, table.splits(100))
    assert "c4n4ry" not in str(caught.value)


def test_bytes_dates_and_times_come_through_as_the_model_reads_them(rig: Rig) -> None:
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [
                {"name": "photo", "type": "bytes"},
                {"name": "at", "type": "timestamp_ms"},
                {"name": "told", "type": "timestamp_s"},
                {"name": "day", "type": "date"},
            ],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )
    rig.sql("DROP TABLE IF EXISTS photos")
    rig.sql("CREATE TABLE photos (id text, photo bytea, at timestamptz, told text, day date)")
    rig.sql(
        r"INSERT INTO photos VALUES ('a', '\x89504e4700ff', '2026-01-31 14:30:05.25+02', "
        r"'2026-01-31T12:30:05Z', '2026-01-31'), ('b', '\x', NULL, 'x', '1969-12-31')"
    )
    told = {"database": {"secretName": "db"}, "sql": "SELECT * FROM photos"}
    source = BatchSource.model_validate({"query": told})
    table = open_table(source, contract, policy=FetchPolicy(), paths=rig.paths)
    (split,) = table.splits(10)
    (chunk,) = table.read(split)
    records, rejects = Decoder(contract).decode(chunk.batch, chunk.rows)
    assert {name: values.tolist() for name, values in records.columns.items()} == {
        "photo": [b"\x89PNG\x00\xff"],
        "at": [1_769_862_605_250],
        "told": [1_769_862_605],
        "day": [20_484],
    }
    assert [(reject.key, reject.field) for reject in rejects] == [("b", "at")]
