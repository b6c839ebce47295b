"""The last answers of a deployment, and a stream's dead letters, for people who look at its page.

What "last" means depends on what the store has: the newest predictions of a stream, the answers of
model servers that are compared with labels later, and of a batch run, whose predictions are all of
one moment, some rows. The number is bounded, and so is the time that a stream's table is searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract
from fourways_runtime.scoring.columns import Key

from ..table_columns import TableColumn
from . import layout
from .database import Database, quoted, table

MAX_ANSWERS = 100
MAX_OUTPUTS = 8
"""Number of outputs that are shown. Those with a shape, and bytes, are left out."""

SEARCH_SECONDS = 2.0
"""A stream's table has no index by time: with many millions of keys, it takes too long."""

_STREAM = "SELECT table_name, contract FROM @streams WHERE namespace = ? AND deployment = ?"
_PUBLISHED = """
    SELECT r.name, r.table_name, r.contract, r.computed_at FROM @published p
    JOIN @runs r ON r.id = p.run_id WHERE p.namespace = ? AND p.deployment = ?"""
_RECORDED = """
    SELECT output, computed_at, keys, numbers, texts FROM @past_predictions
    WHERE namespace = ? AND deployment = ? ORDER BY computed_at DESC, id DESC LIMIT ?"""


_LETTERS = """
    SELECT partition, position, key, attempts, reason, died_at FROM @dead_letters
    WHERE namespace = ? AND deployment = ?
    ORDER BY died_at DESC, partition, position DESC LIMIT ?"""


@dataclass(frozen=True, slots=True)
class RecentDeadLetter:
    """An event that was not scored: where it is, its key as text, and why. Not its value."""

    partition: int
    position: int
    key: str | None
    attempts: int
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RecentAnswer:
    """One prediction: its entity key, when it was made, and outputs by name."""

    key: Key
    at: datetime
    outputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecentAnswers:
    """Predictions of a deployment, the latest first."""

    answers: list[RecentAnswer]
    run: str | None = None
    """The batch run that they are some of."""

    message: str = ""
    """Why there are none, if there may be some."""


def of_run(data: Database, namespace: str, key: str, limit: int) -> RecentAnswers:
    """Return some predictions of the run that is published."""
    found = data.rows(_PUBLISHED, (namespace, key))
    if not found or not found[0][1]:
        return RecentAnswers([])
    name, view, contract, computed_at = found[0]
    shown = _shown(layout.load_contract(contract))
    names = ", ".join(quoted(column.identifier) for column in shown)
    rows = data.rows(f"SELECT {names} FROM {table(view)} LIMIT ?", (limit,))  # noqa: S608
    at = _time(computed_at)
    return RecentAnswers([_answer(shown, row, at) for row in rows], str(name))


def of_stream(data: Database, namespace: str, key: str, limit: int) -> RecentAnswers:
    """Return the newest predictions of a stream, one for each key."""
    found = data.rows(_STREAM, (namespace, key))
    if not found:
        return RecentAnswers([])
    live, contract = found[0]
    shown = _shown(layout.load_contract(contract))
    names = ", ".join(quoted(column.identifier) for column in shown)
    at = quoted(layout.COMPUTED_AT)
    query = f"SELECT {names}, {at} FROM {table(live)} ORDER BY {at} DESC LIMIT ?"  # noqa: S608
    rows = data.rows_within(SEARCH_SECONDS, query, (limit,))
    if rows is None:
        message = "the stream has too many keys to find the newest predictions: ask by key"
        return RecentAnswers([], message=message)
    return RecentAnswers([_answer(shown, row[:-1], _time(row[-1])) for row in rows])


def recorded(data: Database, namespace: str, key: str, limit: int) -> RecentAnswers:
    """Return the newest answers of model servers that are kept to be compared with labels."""
    answers: list[RecentAnswer] = []
    for name, at, keys, numbers, texts in data.rows(_RECORDED, (namespace, key, limit)):
        # What follows the output's name says how it is compared.
        output = str(name).partition(" ")[0]
        if numbers is None and texts is None:
            continue  # a stream's note that predictions were deleted
        listed = orjson.loads(keys)
        values = orjson.loads(texts) if numbers is None else np.frombuffer(numbers, "<f8").tolist()
        answers += [
            RecentAnswer(one, _time(at), {output: value})
            for one, value in zip(listed[::-1], values[::-1], strict=True)
        ]
        if len(answers) >= limit:
            break
    return RecentAnswers(answers[:limit])


def dead_letters(
    data: Database, namespace: str, key: str, limit: int
) -> list[RecentDeadLetter] | None:
    """Return the newest dead letters of a stream; None if finding them takes too long."""
    rows = data.rows_within(SEARCH_SECONDS, _LETTERS, (namespace, key, limit))
    if rows is None:
        return None
    return [
        RecentDeadLetter(partition, position, _text(raw), attempts, reason, _time(at))
        for partition, position, raw, attempts, reason, at in rows
    ]


def _text(key: bytes | None) -> str | None:
    return None if key is None else bytes(key).decode("utf-8", "replace")


def _shown(contract: Contract) -> list[TableColumn]:
    key, *outputs = layout.columns(contract)
    single = [column for column in outputs if not column.shape and column.kind != "bytes"]
    return [key, *single[:MAX_OUTPUTS]]


def _answer(columns: list[TableColumn], row: tuple[Any, ...], at: datetime) -> RecentAnswer:
    key, *cells = row
    outputs = {
        column.name: _value(column, cell) for column, cell in zip(columns[1:], cells, strict=True)
    }
    return RecentAnswer(key, at, outputs)


def _value(column: TableColumn, cell: Any) -> Any:
    # What a database spells differently: numbers without a sign, and truth values.
    if column.kind == "uint64":
        return int(cell)
    return bool(cell) if column.kind == "bool" else cell


def _time(at: Any) -> datetime:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return moment.astimezone(UTC)
