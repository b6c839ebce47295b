"""The tables of the prediction store in PostgreSQL.

Owns the schema ``fourways``:

* ``schema_version``: one row, for migrations to come;
* ``runs``: one row a run, with its contract and the name of its own table;
* ``published``: which run readers see, a row a deployment. Moving it is publishing; moving it
  back is rolling back;
* ``rejects``: the rows refused, by run;
* ``run_<hash>``: the predictions of one run;
* ``streams``: one row a streaming deployment, with its contract and the name of its live table;
  ``revision`` counts its contracts;
* ``models``: which version and digest the live rows' numbers stand for;
* ``positions``: where each partition of a stream's source stands;
* ``dead_letters``: the events that will not be scored;
* ``live_<hash>``: the answers of one stream, a row an entity key.
* ``ledgers``, ``chunks``, ``workers``, ``tombstones``: see :mod:`.ddl`.
"""

from __future__ import annotations

import psycopg

from fourways_runtime.errors import ConfigError

from ..postgres.connection import lock_number
from . import ddl
from .layout import SCHEMA_VERSION

CREATE = """
CREATE SCHEMA IF NOT EXISTS fourways;
CREATE TABLE IF NOT EXISTS fourways.schema_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), version integer NOT NULL);
CREATE TABLE IF NOT EXISTS fourways.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL, deployment text NOT NULL, name text NOT NULL,
    table_name text NOT NULL DEFAULT '',
    version text NOT NULL, digest text NOT NULL, contract text NOT NULL,
    state text NOT NULL DEFAULT 'writing' CHECK (state IN ('writing', 'published')),
    started_at timestamptz NOT NULL, computed_at timestamptz, published_at timestamptz,
    rows bigint NOT NULL DEFAULT 0, rejects bigint NOT NULL DEFAULT 0,
    UNIQUE (namespace, deployment, name));
CREATE TABLE IF NOT EXISTS fourways.published (
    namespace text NOT NULL, deployment text NOT NULL,
    run_id bigint NOT NULL REFERENCES fourways.runs, moved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, deployment));
CREATE TABLE IF NOT EXISTS fourways.rejects (
    run_id bigint NOT NULL REFERENCES fourways.runs ON DELETE CASCADE,
    position bigint NOT NULL, key text, field text NOT NULL, reason text NOT NULL);
CREATE INDEX IF NOT EXISTS rejects_run_id ON fourways.rejects (run_id);
CREATE TABLE IF NOT EXISTS fourways.models (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version text NOT NULL, digest text NOT NULL, UNIQUE (version, digest));
CREATE TABLE IF NOT EXISTS fourways.streams (
    namespace text NOT NULL, deployment text NOT NULL,
    version text NOT NULL, digest text NOT NULL, contract text NOT NULL, source text NOT NULL,
    table_name text NOT NULL, revision bigint NOT NULL DEFAULT 1,
    started_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (namespace, deployment));
CREATE TABLE IF NOT EXISTS fourways.positions (
    namespace text NOT NULL, deployment text NOT NULL, source text NOT NULL,
    partition integer NOT NULL, next bigint NOT NULL, tries integer NOT NULL,
    PRIMARY KEY (namespace, deployment, source, partition)) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS fourways.dead_letters (
    namespace text NOT NULL, deployment text NOT NULL, source text NOT NULL,
    partition integer NOT NULL, position bigint NOT NULL, key bytea, value bytea,
    headers text NOT NULL, attempts integer NOT NULL, reason text NOT NULL,
    died_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, deployment, source, partition, position));
"""
CREATE += ddl.CREATE.replace("@", "fourways.")
# Hashes do not get smaller by compressing.
CREATE += "ALTER TABLE fourways.sections ALTER COLUMN hashes SET STORAGE EXTERNAL;"


def ensure_schema(connection: psycopg.Connection) -> None:
    """Make the tables where they are missing, safely beside others who do the same.

    Raises:
        ConfigError: the store is of a newer version than we know.

    """
    version = _version(connection)
    if version is None or version < SCHEMA_VERSION:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_number("schema"),))
            connection.execute(CREATE)
            connection.execute(
                "INSERT INTO fourways.schema_version AS v (version) VALUES (%s) "
                "ON CONFLICT (only_row) DO UPDATE SET version = excluded.version "
                "WHERE v.version < excluded.version",
                (SCHEMA_VERSION,),
            )
        version = _version(connection)
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"the prediction store has schema version {version}, this worker knows "
            f"{SCHEMA_VERSION}; upgrade the older of the two"
        )


def _version(connection: psycopg.Connection) -> int | None:
    found = connection.execute("SELECT to_regclass('fourways.schema_version')").fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT version FROM fourways.schema_version").fetchone()
    return None if row is None else int(row[0])
