"""The ledger's tables, the same in both databases, and how its statements are written.

Owns what is beside a run's row: ``ledgers`` says how far it is and what it was begun with,
``chunks`` who scores which part of the source and what came of it, ``sections`` by what its rows
are known again where runs compare them (their hashes, and a digest of all their bytes where every
row of a section has a prediction), ``workers`` who took part,
``tombstones`` which keys of the run before it has no prediction for.
``@`` in front of a name stands for the schema, where there is one. Times are seconds since 1970 by
the database's clock, so that no worker's clock counts.
"""

from __future__ import annotations

CREATE = """
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
    digest text, hashes bytea NOT NULL);
CREATE INDEX IF NOT EXISTS sections_run_id ON @sections (run_id, digest);
CREATE TABLE IF NOT EXISTS @workers (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE,
    owner text NOT NULL, name text NOT NULL, started_at double precision NOT NULL,
    PRIMARY KEY (run_id, owner));
CREATE TABLE IF NOT EXISTS @tombstones (
    run_id bigint NOT NULL REFERENCES @runs (id) ON DELETE CASCADE, key text NOT NULL,
    PRIMARY KEY (run_id, key));
"""
