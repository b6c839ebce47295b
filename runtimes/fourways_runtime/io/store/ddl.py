"""The tables of the prediction store, written once for both databases.

* ``schema_version``: one row, for migrations;
* ``owners``: which uid of a deployment has which key; the column ``deployment`` of all other tables
  holds that key (:mod:`.owners`);
* ``runs``: one row per run, with its contract and the name of its own table;
* ``published``: the run that readers see, one row per deployment. Publishing moves it forward, and
  a rollback moves it back;
* ``rejects``: the rows that a run rejected;
* ``run_<hash>``: the predictions of one run;
* ``ledgers``: the progress of a run and the settings it was started with; ``chunks``: which worker
  scores which part of the source, and the result; ``sections``: how the rows of a part are
  recognised again if runs are compared (their hashes, and a digest of all their bytes if every row
  has a prediction); ``workers``: the workers of a run; ``tombstones``: keys of the previous run
  that have no prediction in this one; ``profiles``: how the values of a chunk's records are
  distributed, how those of a published run differ from the training, and how well its predictions
  agree with labels;
* ``streams``: one row per streaming deployment, with its contract and the name of its live table;
  ``revision`` counts its contracts;
* ``models``: the version and digest that the model numbers in live rows refer to;
* ``positions``: the position of each partition of a stream's source;
* ``dead_letters``: events that will not be scored;
* ``live_<hash>``: the predictions of one stream, one row per entity key;
* ``answers``: a stream's predictions for the inputs of requests, one row per key and inputs;
* ``past_predictions``: earlier predictions, to be compared with labels that become known later; one
  row per micro-batch (:mod:`.past`);
* ``worker_reports``: what stream workers say of themselves now, one row each (:mod:`.reports`).

``@`` in front of a name stands for the schema, if there is one; the names in braces are what the
databases spell differently (:class:`Dialect`). The ledger's times are seconds since 1970 by the
database's clock, so that the workers' clocks do not matter.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one database spells the types and defaults of the tables."""

    schema: str
    """Prefix of each table's name."""

    serial: str
    time: str
    now: str
    flag: str
    bytes: str
    updated: str
    """Storage options of a table whose rows are updated constantly."""


POSTGRESQL = Dialect(
    schema="fourways.",
    serial="bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    time="timestamptz",
    now="now()",
    flag="boolean PRIMARY KEY DEFAULT true CHECK (only_row)",
    bytes="bytea",
    updated=" WITH (fillfactor = 50)",
)
SQLITE = Dialect(
    schema="",
    serial="INTEGER PRIMARY KEY AUTOINCREMENT",
    time="text",
    now="CURRENT_TIMESTAMP",
    flag="integer PRIMARY KEY CHECK (only_row = 1)",
    bytes="blob",
    updated="",
)


def create_tables(dialect: Dialect) -> str:
    """Return the statements that create missing tables."""
    return _TABLES.replace("@", dialect.schema).format(**asdict(dialect))


_TABLES = """
CREATE TABLE IF NOT EXISTS @schema_version (only_row {flag}, version integer NOT NULL);
CREATE TABLE IF NOT EXISTS @owners (
    namespace text NOT NULL, deployment text NOT NULL, uid text NOT NULL, key text,
    claimed_at {time} NOT NULL DEFAULT {now}, purged_at {time},
    PRIMARY KEY (namespace, deployment, uid));
CREATE UNIQUE INDEX IF NOT EXISTS owners_key ON @owners (namespace, key);
CREATE TABLE IF NOT EXISTS @runs (
    id {serial},
    namespace text NOT NULL, deployment text NOT NULL, name text NOT NULL,
    table_name text NOT NULL DEFAULT '',
    version text NOT NULL, digest text NOT NULL, contract text NOT NULL,
    state text NOT NULL DEFAULT 'writing' CHECK (state IN ('writing', 'published')),
    started_at {time} NOT NULL, computed_at {time}, published_at {time},
    rows bigint NOT NULL DEFAULT 0, rejects bigint NOT NULL DEFAULT 0,
    UNIQUE (namespace, deployment, name));
CREATE TABLE IF NOT EXISTS @published (
    namespace text NOT NULL, deployment text NOT NULL,
    run_id bigint NOT NULL REFERENCES @runs (id), moved_at {time} NOT NULL DEFAULT {now},
    PRIMARY KEY (namespace, deployment));
CREATE TABLE IF NOT EXISTS @rejects (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE,
    position bigint NOT NULL, key text, field text NOT NULL, reason text NOT NULL);
CREATE INDEX IF NOT EXISTS rejects_run_id ON @rejects (run_id);
CREATE TABLE IF NOT EXISTS @models (
    id {serial},
    version text NOT NULL, digest text NOT NULL, UNIQUE (version, digest));
CREATE TABLE IF NOT EXISTS @streams (
    namespace text NOT NULL, deployment text NOT NULL,
    version text NOT NULL, digest text NOT NULL, contract text NOT NULL, source text NOT NULL,
    table_name text NOT NULL, revision bigint NOT NULL DEFAULT 1,
    started_at {time} NOT NULL DEFAULT {now}, PRIMARY KEY (namespace, deployment));
CREATE TABLE IF NOT EXISTS @positions (
    namespace text NOT NULL, deployment text NOT NULL, source text NOT NULL,
    partition integer NOT NULL, next bigint NOT NULL, tries integer NOT NULL,
    PRIMARY KEY (namespace, deployment, source, partition)){updated};
CREATE TABLE IF NOT EXISTS @dead_letters (
    namespace text NOT NULL, deployment text NOT NULL, source text NOT NULL,
    partition integer NOT NULL, position bigint NOT NULL, key {bytes}, value {bytes},
    headers text NOT NULL, attempts integer NOT NULL, reason text NOT NULL,
    died_at {time} NOT NULL DEFAULT {now},
    PRIMARY KEY (namespace, deployment, source, partition, position));
CREATE TABLE IF NOT EXISTS @answers (
    namespace text NOT NULL, deployment text NOT NULL, question {bytes} NOT NULL,
    key text NOT NULL, outputs text NOT NULL, model bigint NOT NULL, computed_at {time} NOT NULL,
    PRIMARY KEY (namespace, deployment, question)){updated};
CREATE INDEX IF NOT EXISTS answers_key ON @answers (namespace, deployment, key);
CREATE INDEX IF NOT EXISTS answers_age ON @answers (namespace, deployment, computed_at);
CREATE TABLE IF NOT EXISTS @past_predictions (
    id {serial},
    namespace text NOT NULL, deployment text NOT NULL, output text NOT NULL,
    computed_at {time} NOT NULL, size integer NOT NULL,
    keys {bytes} NOT NULL, numbers {bytes}, texts {bytes});
CREATE INDEX IF NOT EXISTS past_predictions_age
    ON @past_predictions (namespace, deployment, computed_at, id);
CREATE TABLE IF NOT EXISTS @worker_reports (
    namespace text NOT NULL, deployment text NOT NULL, worker text NOT NULL,
    document text NOT NULL, told_at double precision NOT NULL,
    PRIMARY KEY (namespace, deployment, worker)){updated};
CREATE TABLE IF NOT EXISTS @ledgers (
    run_id bigint PRIMARY KEY REFERENCES @runs (id) ON DELETE CASCADE,
    state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'open', 'sealed', 'failed')),
    fingerprint text NOT NULL, settings text NOT NULL,
    kind text NOT NULL DEFAULT 'full' CHECK (kind IN ('full', 'watermark', 'hash')),
    base_id bigint, since_full bigint NOT NULL DEFAULT 0, since text, watermark text,
    total_rows bigint,
    own_table text NOT NULL DEFAULT '', base_table text NOT NULL DEFAULT '',
    base_rows bigint NOT NULL DEFAULT 0,
    carried bigint NOT NULL DEFAULT 0, removed bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '', message text NOT NULL DEFAULT '',
    exit_code bigint NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS @chunks (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE,
    number bigint NOT NULL, split text NOT NULL,
    state text NOT NULL DEFAULT 'todo' CHECK (state IN ('todo', 'claimed', 'done')),
    owner text NOT NULL DEFAULT '', attempts bigint NOT NULL DEFAULT 0,
    claimed_at double precision, lease_until double precision, done_at double precision,
    rows bigint NOT NULL DEFAULT 0, predictions bigint NOT NULL DEFAULT 0,
    rejects bigint NOT NULL DEFAULT 0,
    watermark text, receipt text NOT NULL DEFAULT '',
    PRIMARY KEY (run_id, number));
CREATE TABLE IF NOT EXISTS @sections (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE,
    digest text, hashes {bytes} NOT NULL);
CREATE INDEX IF NOT EXISTS sections_run_id ON @sections (run_id, digest);
CREATE TABLE IF NOT EXISTS @workers (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE,
    owner text NOT NULL, name text NOT NULL, started_at double precision NOT NULL,
    PRIMARY KEY (run_id, owner));
CREATE TABLE IF NOT EXISTS @profiles (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE,
    chunk bigint NOT NULL, document text NOT NULL, PRIMARY KEY (run_id, chunk));
CREATE TABLE IF NOT EXISTS @tombstones (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE, key text NOT NULL,
    PRIMARY KEY (run_id, key));
"""
