"""How a contract maps to a table: names, types and versions. Shared by both databases.

Table names are hashes and never contain a user's text. Columns have the contract's names, so that
people can read them with SQL. If a database reserves a name, or does not distinguish upper and
lower case, the column gets a suffix that no contract name can have.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson

from fourways_api import Contract
from fourways_api.base import SKIP_RULES

from ..table_columns import TableColumn
from .base import PublishedRun

DRIFT_ROW, QUALITY_ROW = -1, -2
"""Numbers of a run's rows of ``profiles`` that are of no chunk: how its records differ from those
of the training, and how well its predictions agree with labels."""

SCHEMA_VERSION = 9
"""Raised with each change of the tables. An older store is upgraded in place, so far by creating
the tables it lacks. A newer one is not changed."""

POSITION = "$row"
"""Name of the column with a row's position in the source. No contract name contains a dollar."""

COMPUTED_AT = "$computed_at"
"""Name of the column with the time of a stream's prediction."""

HASH = "$hash"
"""Name of the column with a hash of the row's key and inputs, used if runs are compared."""

DUPLICATE = "a later row has the same key"
"""The reject reason of a row that a later row with the same key replaced."""

# System columns of PostgreSQL.
_RESERVED = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})


def columns(contract: Contract) -> tuple[TableColumn, ...]:
    """Return the columns of a run's table: the entity key, then the outputs."""
    fields = [
        (contract.entity_key.name, contract.entity_key.type, ()),
        *((field.name, field.type, field.shape) for field in contract.outputs),
    ]
    taken = set(_RESERVED)
    found = []
    for name, kind, shape in fields:
        identifier, suffix = name, 2
        while identifier.lower() in taken:
            identifier, suffix = f"{name[:58]}${suffix}", suffix + 1
        taken.add(identifier.lower())
        found.append(TableColumn(name, identifier, kind, tuple(shape)))
    return tuple(found)


def table_name(run_id: int, namespace: str, deployment: str, run: str) -> str:
    """Return the name of a run's table. The id gives each attempt its own table."""
    identity = "\0".join((str(run_id), namespace, deployment, run))
    return "run_" + hashlib.sha256(identity.encode()).hexdigest()[:24]


def dump_contract(contract: Contract) -> str:
    """Serialize a contract for storage with a run."""
    return orjson.dumps(contract.to_json()).decode()


def load_contract(text: str) -> Contract:
    """Parse a contract stored with a run."""
    # Its rules were checked when it was stored.
    return Contract.model_validate_json(text, context=SKIP_RULES)


def published_run(row: tuple[Any, ...]) -> PublishedRun:
    """Build a run from name, version, digest, contract, computed_at, rows and rejects."""
    name, version, digest, contract, computed_at, rows, rejects = row
    if isinstance(computed_at, str):
        computed_at = datetime.fromisoformat(computed_at)
    return PublishedRun(
        name, version, digest, load_contract(contract), computed_at.astimezone(UTC), rows, rejects
    )


RUN_COLUMNS = "r.name, r.version, r.digest, r.contract, r.computed_at, r.rows, r.rejects"
"""The columns of ``runs``, aliased ``r``, from which :func:`published_run` builds a run."""
