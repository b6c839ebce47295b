"""Ways to others' rows by the SQL of a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from fourways_api import BatchSource, FetchPolicy
from fourways_runtime.io.sources import open_table

from .hosts import CONTRACT, paths_of, refused
from .way import CANARY, Ground, Reached, Way

OWN = "SELECT id, x FROM mine"
# ruff: noqa: S608  (these are injections)
STATEMENTS = {
    "a second statement": f"{OWN}; DELETE FROM mine",
    "out of the parentheses, to write": f"{OWN}) AS q LIMIT 0; COMMIT; BEGIN READ WRITE; "
    f"UPDATE mine SET x = 9; COMMIT; BEGIN; SELECT * FROM ({OWN}",
    "out of the parentheses, to delete": f"{OWN}) AS q LIMIT 0; DELETE FROM mine; "
    f"SELECT * FROM ({OWN}",
    "out of a COPY": f"{OWN}) TO STDOUT; DELETE FROM mine; COPY ({OWN}",
    "a comment over the rest": f"{OWN}) AS q --",
    "an open comment": f"{OWN} /*",
    "an open quote": f"{OWN} WHERE id = $$",
    "a parameter": f"{OWN} WHERE id = $1",
    "the end of the transaction": "COMMIT",
    "another role": "SET ROLE tester",
    "a program": "COPY mine TO PROGRAM 'touch /tmp/fourways-reached'",
    "a file": "COPY mine FROM '/etc/passwd'",
    "a delete": "DELETE FROM mine RETURNING *",
    "a delete within": "WITH d AS (DELETE FROM mine RETURNING *) SELECT * FROM d",
    "an update": "UPDATE mine SET x = 9 RETURNING *",
    "a lock": f"{OWN} FOR UPDATE",
    "a write by a function": f"{OWN} WHERE spoil() = 1",
    "a table of others": "SELECT id, x FROM others",
    "a table of others, beside one's own": f"{OWN} UNION ALL SELECT id, x FROM others",
    "a table of others, one value": "SELECT (SELECT id FROM others LIMIT 1) AS id, x FROM mine",
    "a file of the server": "SELECT pg_read_file('/etc/passwd') AS id, 1.0 AS x",
    "a folder of the server": "SELECT pg_ls_dir('/') AS id, 1.0 AS x",
    "passwords": "SELECT rolpassword AS id, 1.0 AS x FROM pg_authid",
    "a large object of a file": "SELECT lo_import('/etc/passwd')::text AS id, 1.0 AS x",
}
READS = ("a table of others", "a file of", "a folder of", "passwords", "a large object")
"""What the role in the Secret decides: beginnings of names."""

_TABLES = """
CREATE TABLE mine (id text, x real);
INSERT INTO mine VALUES ('a', 1), ('b', 2);
CREATE TABLE others (id text, x real);
INSERT INTO others VALUES ('{canary}', 3);
CREATE FUNCTION spoil() RETURNS int LANGUAGE sql AS 'DELETE FROM mine; SELECT 1';
CREATE ROLE author LOGIN NOSUPERUSER;
GRANT SELECT, UPDATE, DELETE ON mine TO author;
"""


def lay_out(database: str) -> None:
    """Make a table of one's own and others', and the role of the author's Secret."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(_TABLES.format(canary=CANARY).encode())


def ways() -> Iterator[Way]:
    """Return the ways with SQL."""
    for name, sql in STATEMENTS.items():
        says = "permission denied" if name.startswith(READS) else "the source"
        yield _way(name, sql, says)


def _way(name: str, sql: str, says: str) -> Way:
    def refusal(ground: Ground) -> str:
        ground.secret("mine", uri=ground.database.replace("tester:s3cret", "author:pw"))
        told = {"query": {"database": {"secretName": "mine"}, "sql": sql}}
        said = refused(lambda: read(ground, told))
        with psycopg.connect(ground.database) as connection:
            rows = connection.execute("SELECT count(*), sum(x) FROM mine").fetchone()
        if rows != (2, 3.0):
            raise Reached(f"the rows are changed: {rows}")
        return said

    return Way("database row", name, refusal, says)


def read(ground: Ground, told: dict[str, Any]) -> list[Any]:
    """Return the rows of a source's query."""
    table = open_table(
        BatchSource.model_validate(told), CONTRACT, policy=FetchPolicy(), paths=paths_of(ground)
    )
    return [chunk.batch.to_pylist() for split in table.splits(10) for chunk in table.read(split)]
