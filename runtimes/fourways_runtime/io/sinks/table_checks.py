"""Checks, before the first row is scored, that a user's table can take the predictions.

Each fault is one line that says what to do. Types are compared strictly: a type that could lose a
digit or cut a value off is rejected here rather than at the end of a long run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from fourways_runtime.errors import ConfigError

from ..postgres import copy_in as pgcopy
from ..table_columns import TableColumn

_WIDER = {
    "boolean": ("bool",),
    "smallint": ("int2", "int4", "int8", "numeric", "float4", "float8"),
    "integer": ("int4", "int8", "numeric", "float8"),
    "bigint": ("int8", "numeric"),
    "numeric": ("numeric",),
    "real": ("float4", "float8"),
    "double precision": ("float8",),
    "text": ("text", "varchar", "citext"),
}
_TABLE = """
    SELECT c.oid, n.nspname, c.relkind,
        has_schema_privilege(n.oid, 'CREATE'),
        has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'DELETE'),
        has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'SELECT'),
        EXISTS (SELECT FROM pg_constraint r WHERE r.confrelid = c.oid AND r.contype = 'f'),
        row_security_active(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(%s)"""
_COLUMNS = """
    SELECT a.attname, t.typname, a.atttypmod, a.attnotnull, a.atthasdef,
        a.attgenerated <> '' OR a.attidentity = 'a',
        a.attidentity <> '', format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
_UNIQUE = """
    SELECT FROM pg_index i JOIN pg_attribute a
        ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = %s AND a.attname = %s AND i.indisunique AND i.indimmediate
        AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL AND i.indexprs IS NULL"""


def check_table(
    connection: psycopg.Connection,
    target: Sequence[str],
    columns: Sequence[TableColumn],
    into: Sequence[str],
    *,
    upsert: bool,
) -> str:
    """Check the table ``target``; ``into`` are its columns for ``columns``. Return its schema.

    Raises:
        ConfigError: it names all faults of the table.

    """
    shown = ".".join(target)
    found = connection.execute(_TABLE, (_quoted(target),)).fetchone()
    if found is None:
        raise ConfigError(f"sink.table: there is no table {shown}, or this user may not see it")
    oid, schema, kind, *rights, referenced, secured = found
    rows = {row[0]: row[1:] for row in connection.execute(_COLUMNS, (oid,)).fetchall()}
    unique = connection.execute(_UNIQUE, (oid, into[0])).fetchone() is not None
    faults = [
        *_table_faults(kind, referenced, secured, upsert=upsert),
        *_missing_rights(schema, rights, upsert=upsert),
        *_column_faults(rows, columns, into),
        *_left_out(rows, into),
        *_index_faults(unique, into[0], upsert=upsert),
    ]
    if faults:
        raise ConfigError(f"sink.table {shown}: {'; '.join(faults)}"[:1000])
    return str(schema)


def _table_faults(
    kind: str | bytes, referenced: bool, secured: bool, *, upsert: bool
) -> Iterator[str]:
    named = kind.decode() if isinstance(kind, bytes) else kind
    if named not in ("r", "p"):
        yield "it is not a table"
    if referenced and not upsert:
        yield "other tables refer to its rows, which Replace would delete; use Upsert"
    if secured and not upsert:
        yield (
            "row security hides rows from this user, which Replace would keep; "
            "use a role with BYPASSRLS"
        )


def _missing_rights(schema: str, rights: list[bool], *, upsert: bool) -> Iterator[str]:
    create, insert, delete, update, select = rights
    if not create:
        yield f"the right CREATE on the schema {schema} is missing; the staging table needs it"
    if not insert:
        yield "the right INSERT is missing"
    if not delete and not upsert:
        yield "the right DELETE is missing, which Replace needs"
    if upsert and not (update and select):
        yield "the rights SELECT and UPDATE are missing, which Upsert needs"


def _column_faults(
    rows: dict[str, Any], columns: Sequence[TableColumn], into: Sequence[str]
) -> Iterator[str]:
    for column, name in zip(columns, into, strict=True):
        if name not in rows:
            listed = ", ".join(list(rows)[:20])
            yield f"it has no column {name} for {column.name}; it has {listed}"
            continue
        kind, modifier, _, _, generated, _, declared = rows[name]
        ours = pgcopy.sql_type(column)
        if generated:
            yield f"column {name} is generated"
        elif not _fits(ours, kind):
            yield f"column {name} is {_shown(kind)}, {column.name} is {ours}"
        elif modifier >= 0:
            yield (
                f"column {name} is {declared}, which may be too narrow for {column.name}: "
                f"ALTER COLUMN {name} TYPE {ours}"
            )


def _fits(ours: str, kind: str) -> bool:
    element = ours.removesuffix("[]")
    while element.endswith("[]"):
        element = element.removesuffix("[]")
    if ours.endswith("[]") != kind.startswith("_"):
        return False
    return kind.removeprefix("_") in _WIDER[element]


def _shown(kind: str) -> str:
    return f"{kind[1:]}[]" if kind.startswith("_") else kind


def _left_out(rows: dict[str, Any], into: Sequence[str]) -> Iterator[str]:
    for name, (_, _, not_null, default, generated, identity, _) in rows.items():
        if name not in into and not_null and not (default or generated or identity):
            yield f"column {name} may not be null and has no default"


def _index_faults(unique: bool, key: str, *, upsert: bool) -> Iterator[str]:
    if upsert and not unique:
        yield f"there is no unique index on {key} alone, which Upsert needs"


_MEDDLERS = """
    SELECT 'trigger ' || tgname FROM pg_trigger
    WHERE tgrelid = to_regclass(%(table)s) AND NOT tgisinternal AND tgenabled <> 'D'
    UNION ALL SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = to_regclass(%(table)s)
    UNION ALL SELECT 'row security policy ' || polname FROM pg_policy
    WHERE polrelid = to_regclass(%(table)s)"""
_HOLDERS = """
    SELECT DISTINCT l.relation::regclass::text, l.mode, l.pid, a.usename, a.application_name
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.locktype = 'relation' AND l.pid <> pg_backend_pid()
    AND l.relation = ANY (SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS name)
    ORDER BY 1, 2, 3 LIMIT 5"""


def meddlers(connection: psycopg.Connection, target: Sequence[str]) -> str:
    """Return the names of the triggers, rules and policies of a table."""
    found = connection.execute(_MEDDLERS, {"table": _quoted(target)}).fetchall()
    return ", ".join(sorted(name for (name,) in found))[:300] or "a trigger, a rule or row security"


def lock_holders(connection: psycopg.Connection, tables: Sequence[Sequence[str]]) -> str:
    """Return the names of the holders of locks on tables."""
    found = connection.execute(_HOLDERS, ([_quoted(each) for each in tables],)).fetchall()
    holders = [
        f"{table} is held by process {pid} ({', '.join(filter(None, (program, user)))}; {mode})"
        for table, mode, pid, user, program in found
    ]
    return "; ".join(holders)[:600] or "the lock has been released since"


def _quoted(table: Sequence[str]) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in table)
