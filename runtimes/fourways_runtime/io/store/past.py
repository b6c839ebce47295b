"""Past predictions of one output: what a key was predicted before its label became known.

One row holds the predictions of one micro-batch, or the answers of a model server in a tenth of a
second: their keys as a JSON list, and the values as one
block, float64 in little-endian order or a JSON list of texts. A row without values says that the
predictions of its keys were deleted. So a row costs about as much as one prediction, and a window
of millions is read in a second; nothing is looked up by key here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import orjson

from fourways_api import Contract
from fourways_api.quality import Quality
from fourways_api.runtime_config import StoredAnswers
from fourways_runtime.scoring.columns import Array, Key, Predictions
from fourways_runtime.scoring.late_truth import PastBatch, in_share, is_text, share_of

from .database import Database

PAGE = 500
"""Number of rows that are read at a time."""

ROW_COST = 4
"""So many predictions more are counted for each row, as it takes as long to read as these do."""

PAST_ROW = """
    INSERT INTO @past_predictions
        (namespace, deployment, output, computed_at, size, keys, numbers, texts)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_OURS = "namespace = ? AND deployment = ?"
_NAMED = f"{_OURS} AND output = ?"
_PAGE = f"""
    SELECT computed_at, id, keys, numbers, texts FROM @past_predictions
    WHERE {_NAMED} AND (computed_at, id) > (?, ?) ORDER BY computed_at, id LIMIT {PAGE}"""  # noqa: S608
_EXPIRED = f"DELETE FROM @past_predictions WHERE {_OURS} AND computed_at < ?"  # noqa: S608
_KEPT = f"SELECT coalesce(sum(size + {ROW_COST}), 0) FROM @past_predictions WHERE {_OURS}"  # noqa: S608
_OLDEST = f"SELECT min(computed_at) FROM @past_predictions WHERE {_NAMED}"  # noqa: S608
_TOO_MANY = f"""
    DELETE FROM @past_predictions WHERE id IN (SELECT id FROM (
        SELECT id, sum(size + {ROW_COST}) OVER (ORDER BY computed_at DESC, id DESC) AS newer
        FROM @past_predictions WHERE {_OURS}) AS each_row WHERE newer > ?)"""  # noqa: S608


class PastChunk(NamedTuple):
    """The predictions of one micro-batch, as they are stored."""

    size: int
    keys: bytes
    numbers: bytes | None
    texts: bytes | None


@dataclass(frozen=True, slots=True)
class Compared:
    """What is kept of predictions: one output, of a share of the keys."""

    output: str
    share: float = 1.0
    text: bool = False
    """Whether its values are texts."""

    @classmethod
    def of(cls, declared: Quality | StoredAnswers, contract: Contract) -> Compared:
        """Return what is kept for the labels that a spec declares."""
        text = is_text(contract, declared.output)
        return cls(declared.output, share_of(declared.share), text)

    @property
    def name(self) -> str:
        """Name under which rows are kept. Rows under another one are not compared.

        With another share, rows of some keys would be missing; with another type, not comparable.
        """
        kind = " text" if self.text else ""
        return f"{self.output}{kind}" + ("" if self.share == 1.0 else f" {self.share:g}")


def past_chunks(
    compared: Compared | None, predictions: Predictions, deleted: Sequence[Key]
) -> list[PastChunk]:
    """Return what is stored of a micro-batch; nothing if no output is compared."""
    found: list[PastChunk] = []
    if compared is None:
        return found
    if len(predictions):
        # Of two predictions for a key, the one with the higher row counts: it comes last.
        rows, keys = predictions.rows, predictions.keys
        values = predictions.columns[compared.output]
        if not (np.diff(rows) > 0).all():
            order = np.argsort(rows)
            keys, values = keys[order], values[order]
        listed = list(keys.tolist())
        if compared.share < 1.0:
            chosen = in_share(listed, compared.share)
            listed, values = [listed[at] for at in chosen], values[chosen]
        found.append(packed(listed, values))
    if deleted:
        gone = [deleted[at] for at in in_share(deleted, compared.share)]
        found.append(PastChunk(len(gone), orjson.dumps(gone), None, None))
    return [chunk for chunk in found if chunk.size]


def packed(keys: list[Key], values: Array) -> PastChunk:
    """Return what is stored of the predictions for these keys."""
    listed = orjson.dumps(keys)
    if values.dtype == object:
        return PastChunk(len(keys), listed, None, orjson.dumps(values.tolist()))
    return PastChunk(len(keys), listed, values.astype("<f8").tobytes(), None)


def prune(data: Database, namespace: str, key: str, since: datetime, most: int) -> None:
    """Delete predictions before ``since``, and the oldest of more than ``most``, rows included."""
    whose = (namespace, key)
    data.change(_EXPIRED, (*whose, data.time(since)))
    ((kept,),) = data.rows(_KEPT, whose)
    if kept > most:
        data.change(_TOO_MANY, (*whose, most))


def write_chunks(
    data: Database,
    namespace: str,
    key: str,
    name: str,
    chunks: Sequence[tuple[datetime, PastChunk]],
) -> None:
    """Store predictions with the times at which they were made: all of them, or none."""
    with data.transaction():
        for at, chunk in chunks:
            data.change(PAST_ROW, (namespace, key, name, data.time(at), *chunk))


def store_time(data: Database) -> float:
    """Return the time of the database's clock, in seconds since 1970."""
    ((now,),) = data.rows("SELECT :now")
    return float(now)


def past_batches(
    data: Database, namespace: str, key: str, name: str, since: datetime
) -> Iterator[PastBatch]:
    """Yield the predictions made from ``since`` on under a name, the oldest first."""
    at: Any = data.time(since)
    last = -1
    while True:
        rows = data.rows(_PAGE, (namespace, key, name, at, last))
        for at, last, keys, numbers, texts in rows:  # noqa: B007  (where the next page begins)
            yield PastBatch(microseconds(_time(at)), orjson.loads(keys), _values(numbers, texts))
        if len(rows) < PAGE:
            return


def _values(numbers: bytes | None, texts: bytes | None) -> list[Any] | None:
    if numbers is not None:
        found: list[Any] = np.frombuffer(numbers, "<f8").tolist()
        return found
    return None if texts is None else orjson.loads(texts)


def oldest(data: Database, namespace: str, key: str, name: str) -> datetime | None:
    """Return when the oldest prediction that is kept was made; None if there is none."""
    ((at,),) = data.rows(_OLDEST, (namespace, key, name))
    return None if at is None else _time(at)


def _time(at: Any) -> datetime:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return moment.astimezone(UTC)


def microseconds(at: datetime) -> int:
    """Return a time in microseconds since 1970, exactly."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
