"""A store with least rights: what workers and gateways may do with it, and what they may not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml

from fourways_cli.main import app
from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.io.store import (
    Owners,
    StreamDeclaration,
    open_database,
    open_reader,
    open_run_store,
    open_stream_writer,
)
from fourways_runtime.io.store.purging import purge
from fourways_runtime.io.store.roles import StoreRoles, database_name, prepare_store
from fourways_runtime.io.store.streams.stream import Move, QuestionAnswer
from tests.kit.cli import CliRunner
from tests.kit.stores import a_run, commit, contract, predictions, publish
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded

OWNERS = Owners("shop", {"churn": "uid-1", "anomaly": "uid-2"})


@pytest.fixture
def admin(postgres: Server) -> Iterator[str]:
    """The address of a role that is no superuser and may create roles and databases."""
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute("CREATE ROLE boss LOGIN CREATEDB CREATEROLE")
        yield postgres.uri().replace("tester:s3cret", "boss:s3cret")
        for database in ("fourways_shop", "fourways_bank"):
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())
            for role in (database, f"{database}_gateway"):
                connection.execute(f"DROP ROLE IF EXISTS {role}".encode())
        connection.execute("DROP OWNED BY boss")
        connection.execute("DROP ROLE boss")


def addresses(made: StoreRoles) -> tuple[str, str]:
    assert made.worker.uri is not None
    assert made.gateway.uri is not None
    return made.worker.uri, made.gateway.uri


async def test_workers_write_and_gateways_read(admin: str) -> None:
    worker, gateway = addresses(prepare_store(admin, database_name("shop")))
    for name, value in (("r1", 1.0), ("r2", 2.0), ("r3", 3.0)):
        with closing(open_run_store(worker, OWNERS)) as store:
            publish(store, a_run("shop", name), predictions([1], y=[value]), keep=1)
    stream = StreamDeclaration("shop", "anomaly", "v1", "sha256:1", contract(), "topic")
    writer = open_stream_writer(worker, stream, OWNERS)
    writer.begin({0: 0})
    asked = [QuestionAnswer(b"q" * 16, "1", '{"y": 0.5}')]
    commit(writer, [Move(0, 0, 1)], predictions([1], y=[0.5]), answered=asked)
    writer.close()
    reader = open_reader(gateway, 5.0, OWNERS)
    try:
        assert await reader.ready()
        found = await reader.lookup("shop", "churn", [1])
        assert found is not None
        assert found.rows == {1: {"y": 3.0}}
        live = await reader.live("shop", "anomaly", [1, b"q" * 16])
        assert live is not None
        assert {key: each.outputs["y"] for key, each in live.answers.items()} == {
            1: 0.5,
            b"q" * 16: 0.5,
        }
    finally:
        await reader.close()
    with closing(open_run_store(gateway, OWNERS, read_only=True)) as history:
        assert [run.name for run in history.runs("shop", "churn")] == ["r3"]
    with closing(open_database(worker)) as database:
        purge(database, "shop", "churn", ["uid-1"])


def test_what_the_roles_may_not_do(admin: str) -> None:
    worker, gateway = addresses(prepare_store(admin, database_name("shop")))
    others, _ = addresses(prepare_store(admin, database_name("bank")))
    with closing(open_run_store(worker, OWNERS)) as store:
        publish(store, a_run("shop"), predictions([1], y=[1.0]))
    refused = {
        worker: (
            "ALTER TABLE fourways.runs ADD COLUMN x int",
            "DROP TABLE fourways.runs",
            "UPDATE fourways.schema_version SET version = 1",
            "CREATE ROLE other",
            "CREATE DATABASE other",
            "COPY fourways.runs TO PROGRAM 'cat > /tmp/x'",
            "SELECT pg_read_file('/etc/passwd')",
        ),
        gateway: (
            "INSERT INTO fourways.models (version, digest) VALUES ('1', '1')",
            "DELETE FROM fourways.runs",
            "CREATE TABLE fourways.mine (x int)",
            "CREATE TABLE mine (x int)",
            "SELECT pg_read_file('/etc/passwd')",
        ),
    }
    for uri, statements in refused.items():
        for statement in statements:
            with (
                psycopg.connect(uri, autocommit=True) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute(statement.encode())
    # One namespace's database is closed to another's roles.
    for uri in (worker, gateway):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(uri.replace("/fourways_shop?", "/fourways_bank?"))
    psycopg.connect(others).close()


def test_a_role_without_the_right_to_upgrade_says_the_command(admin: str) -> None:
    worker, _ = addresses(prepare_store(admin, database_name("shop")))
    owner = admin.replace("/postgres?", "/fourways_shop?")
    with psycopg.connect(owner) as connection:
        connection.execute("DROP TABLE fourways.answers")
        connection.execute("UPDATE fourways.schema_version SET version = 5")
    with pytest.raises(ConfigError, match=r"schema version 5.*run fourways store init"):
        open_run_store(worker, OWNERS)
    made = prepare_store(admin, database_name("shop"))
    assert (made.worker.uri, made.gateway.uri) == (None, None)
    open_run_store(worker, OWNERS).close()


async def test_a_store_that_one_role_owned_is_handed_over(admin: str, postgres: Server) -> None:
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fourways_shop")
    owner = admin.replace("/postgres?", "/fourways_shop?")
    with closing(open_run_store(owner, OWNERS)) as store:
        publish(store, a_run("shop", "old"), predictions([1], y=[1.0]))
    worker, gateway = addresses(prepare_store(admin, database_name("shop")))
    reader = open_reader(gateway, 5.0, OWNERS)
    found = await reader.lookup("shop", "churn", [1])
    await reader.close()
    assert found is not None
    assert found.rows == {1: {"y": 1.0}}
    with closing(open_run_store(worker, OWNERS)) as store:
        publish(store, a_run("shop", "new"), predictions([1], y=[2.0]), keep=1)
    with psycopg.connect(owner) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE tablename ~ '^run_'"
        ).fetchone()
    assert left == (1,)


def test_the_command_prints_secrets_once(admin: str, tmp_path: Path) -> None:
    file = tmp_path / "admin"
    file.write_text(admin + "\n")
    (tmp_path / "ca.crt").write_text("an authority")
    command = ["store", "init", "-n", "shop", "--admin-uri-file", str(file)]
    told = CliRunner().invoke(
        app, [*command, "--ca-file", str(tmp_path / "ca.crt"), "--address", "db.example:6432"]
    )
    assert told.exit_code == 0, told.output
    first, second = yaml.safe_load_all(told.stdout)
    assert [it["metadata"]["name"] for it in (first, second)] == [
        "fourways-store",
        "fourways-store-gateway",
    ]
    uri = base64.b64decode(first["data"]["uri"]).decode()
    assert uri.startswith("postgresql://fourways_shop:")
    assert "@db.example:6432/fourways_shop" in uri
    assert base64.b64decode(second["data"]["ca.crt"]) == b"an authority"
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "keeps its password" in again.stderr


def test_an_address_that_is_none_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "admin"
    file.write_text("mysql://root:s3cret@db/x")
    told = CliRunner().invoke(app, ["store", "init", "-n", "shop", "--admin-uri-file", str(file)])
    assert told.exit_code == 2
    assert "s3cret" not in told.output


def test_an_admin_without_rights_is_told(admin: str, postgres: Server) -> None:
    worker, _ = addresses(prepare_store(admin, database_name("shop")))
    with pytest.raises((ConfigError, StoreUnavailable), match="permission denied"):
        prepare_store(worker, database_name("bank"))
