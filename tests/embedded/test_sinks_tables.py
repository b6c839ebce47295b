"""Tables of a database as sinks: what they must have, and what readers see."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from fourways_runtime.errors import ConfigError, SinkUnavailable
from tests.kit.sink_rig import Rig, write
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    return postgres.database()


@pytest.mark.parametrize(
    ("table", "write", "told"),
    [
        ("", "Replace", "there is no table t"),
        ("(id text, label text, parts float8[])", "Replace", "it has no column s for score"),
        (
            "(id text, s smallint, label text, parts float8[])",
            "Replace",
            "column s is int2, score is real",
        ),
        (
            "(id text, s real, label varchar(3), parts float8[])",
            "Replace",
            r"column label is character varying\(3\), which may be too narrow for label: "
            "ALTER COLUMN label TYPE text",
        ),
        (
            "(id text, s real, label text, parts float8)",
            "Replace",
            "column parts is float8, parts is double precision[]",
        ),
        (
            "(id text, s real, label text, parts float8[], day date NOT NULL)",
            "Replace",
            "column day may not be null and has no default",
        ),
        (
            "(id text, s real, label text, parts float8[])",
            "Upsert",
            "there is no unique index on id alone",
        ),
        (
            "(id text PRIMARY KEY, s real, label text, parts float8[]);"
            "CREATE TABLE other (t text REFERENCES t)",
            "Replace",
            "other tables refer to its rows",
        ),
    ],
)
def test_a_table_that_cannot_take_them_is_refused_before_the_first_row(
    tmp_path: Path, database: str, table: str, write: str, told: str
) -> None:
    rig = Rig(write, tmp_path, database)
    rig.sql("DROP TABLE t")
    if table:
        rig.sql(f"CREATE TABLE t {table}")
    with pytest.raises(ConfigError, match=told.replace("[", r"\[").replace("]", r"\]")):
        rig.open()


def test_rights_that_are_missing_are_named(tmp_path: Path, database: str) -> None:
    rig = Rig("Replace", tmp_path, database)
    rig.sql("CREATE ROLE poor LOGIN")
    rig.sql("GRANT SELECT ON t TO poor; GRANT USAGE ON SCHEMA public TO poor")
    poor = rig.database.replace("tester", "poor")
    (tmp_path / "secrets" / "db" / "uri").write_text(poor)
    with pytest.raises(ConfigError, match="the right CREATE on the schema public is missing") as e:
        rig.open()
    assert "the right INSERT is missing" in str(e.value)
    assert "s3cret" not in str(e.value)


def test_rows_that_row_security_hides_are_not_replaced_in_silence(
    tmp_path: Path, database: str
) -> None:
    rig = Rig("Replace", tmp_path, database)
    rig.sql("CREATE ROLE half_blind LOGIN")
    rig.sql("GRANT ALL ON t TO half_blind; GRANT ALL ON SCHEMA public TO half_blind")
    rig.sql("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    rig.sql("CREATE POLICY own ON t USING (id < 'm')")
    half_blind = rig.database.replace("tester", "half_blind")
    (tmp_path / "secrets" / "db" / "uri").write_text(half_blind)
    with pytest.raises(ConfigError, match="row security hides rows from this user"):
        rig.open()
    rig.sql("ALTER ROLE half_blind BYPASSRLS")
    rig.open().close()


def test_a_reader_with_an_older_snapshot_sees_the_rows_before(
    tmp_path: Path, database: str
) -> None:
    rig = Rig("Replace", tmp_path, database)
    sink = rig.open("r1")
    sink.publish({0: write(sink, 0, ["old"])})
    with psycopg.connect(rig.database) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert reader.execute("SELECT 1").fetchall() == [(1,)]
        later = rig.open("r2")
        later.publish({0: write(later, 0, ["new"])})
        assert reader.execute("SELECT id FROM t").fetchall() == [("old",)]
    assert set(rig.seen()) == {"new"}
    assert rig.sql("SELECT DISTINCT more FROM t") == [(7,)]


def test_a_database_that_is_away_is_worth_another_try(tmp_path: Path, database: str) -> None:
    rig = Rig("Replace", tmp_path, database)
    gone = "postgresql://tester:s3cret@/t?host=/nowhere"
    (tmp_path / "secrets" / "db" / "uri").write_text(gone)
    with pytest.raises(SinkUnavailable, match="the sink's database: ") as error:
        rig.open()
    assert "s3cret" not in str(error.value)


def test_a_rotated_secret_is_read_again_and_a_refused_login_is_named(
    tmp_path: Path, database: str
) -> None:
    rig = Rig("Replace", tmp_path, database)
    sink = rig.open()
    secret = tmp_path / "secrets" / "db" / "uri"
    good = secret.read_text()
    secret.write_text(good.replace("tester:s3cret", "nobody:s3cret"))
    rig.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with pytest.raises(SinkUnavailable):
        sink.begin()  # the connection is gone
    with pytest.raises(SinkUnavailable, match="refuses the login in the Secret db: ") as error:
        sink.begin()
    assert "s3cret" not in str(error.value)
    secret.write_text(good)
    sink.begin()
    sink.close()


DROPS_B = (
    "CREATE OR REPLACE FUNCTION drop_b() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN IF NEW.id = 'b' THEN RETURN NULL; END IF; RETURN NEW; END $$; "
    "CREATE TRIGGER no_b BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION drop_b()"
)
KEEPS_OLD = (
    "CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RETURN NULL; END $$; "
    "CREATE TRIGGER kept BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION keep()"
)


@pytest.mark.parametrize(
    ("write_as", "meddler", "told"),
    [
        ("Replace", DROPS_B, "it accepted 1 of 2 rows, .*trigger no_b"),
        ("Upsert", DROPS_B, "it accepted 1 of 2 rows, .*trigger no_b"),
        (
            "Replace",
            "CREATE RULE away AS ON INSERT TO t WHERE NEW.id = 'b' DO INSTEAD NOTHING",
            "it accepted 1 of 2 rows, .*rule away",
        ),
        ("Replace", KEEPS_OLD, "it holds 3 rows after they were replaced by 2, .*trigger kept"),
    ],
)
def test_what_a_table_took_is_counted(
    tmp_path: Path, database: str, write_as: str, meddler: str, told: str
) -> None:
    rig = Rig(write_as, tmp_path, database)
    sink = rig.open("r0")
    receipts = {0: write(sink, 0, ["old"])}
    sink.publish(receipts)
    sink.close()
    before = rig.seen()
    rig.sql(meddler)
    sink = rig.open("r1")
    receipts = {0: write(sink, 0, ["a", "b"])}
    with pytest.raises(ConfigError, match=told):
        sink.publish(receipts)
    sink.close()
    assert rig.seen() == before, "nothing was published"


@pytest.mark.parametrize("mode", ["SHARE", "ACCESS EXCLUSIVE"])
def test_a_lock_is_not_waited_for_without_end_and_its_holder_is_named(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("fourways_runtime.io.sinks.table.LOCK_SECONDS", 1)
    rig = Rig("Replace", tmp_path, database)
    sink = rig.open("r1")
    receipts = {0: write(sink, 0, ["a"])}
    with psycopg.connect(database, application_name="nightly_dump") as other:
        other.execute(f"LOCK TABLE t IN {mode} MODE")
        with pytest.raises(SinkUnavailable, match=r"t is held by process \d+ \(nightly_dump"):
            sink.publish(receipts)
    sink.publish(receipts)
    assert set(rig.seen()) == {"a"}
    sink.close()


def test_a_dump_of_what_is_aside_does_not_hold_a_run(tmp_path: Path, database: str) -> None:
    rig = Rig("Replace", tmp_path, database)
    sink = rig.open("r1")
    receipts = {0: write(sink, 0, ["a"])}
    with psycopg.connect(database) as dump:
        ((aside,),) = dump.execute(
            "SELECT relname FROM pg_class WHERE relname ~ '^fourways_' AND relkind = 'r'"
        ).fetchall()
        dump.execute(f"LOCK TABLE {aside} IN ACCESS SHARE MODE")
        sink.publish(receipts)
        sink.close()
        sink = rig.open("r2")
        sink.close()
    assert set(rig.seen()) == {"a"}
    rig.open("r3").close()
    found = rig.sql("SELECT relname FROM pg_class WHERE relname ~ '^fourways_' AND relkind = 'r'")
    assert (aside,) not in found
