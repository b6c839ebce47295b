"""Keeps what a model server answered, so that labels can be compared with it once they are known.

A request's thread only notes the keys and the values of one output, in memory. Another thread
writes them to the prediction store every second. So a request neither waits for the store nor fails
with it: what finds no room is counted and left out. Without ``spec.quality``, nothing here runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from fourways_api.runtime_config import ServerConfig
from fourways_http import Response
from fourways_runtime.errors import WorkloadError
from fourways_runtime.io.store.owners import open_claimed
from fourways_runtime.io.store.past import (
    Compared,
    PastChunk,
    packed,
    store_time,
    write_chunks,
)
from fourways_runtime.process import in_thread
from fourways_runtime.scoring.columns import Array, Key
from fourways_runtime.scoring.late_truth import in_share

if TYPE_CHECKING:
    from fourways_runtime.io.store.database import Database
    from fourways_runtime.v2.batcher import Render
    from fourways_runtime.v2.parts import ScoredPart
    from fourways_runtime.v2.request import InferenceRequest
    from fourways_runtime.v2.templates import UnparsedRequest

FLUSH_SECONDS = 1.0
"""Time between two writes. A process that is killed loses the answers since the last one."""

SLICE_SECONDS = 0.1
"""Answers of one row are at most so far apart; all count as made when the first one was."""

MAX_ROW = 4096
"""Maximum number of answers of one row, unless a single request has more."""

ROOM = 50_000
"""Number of answers that wait for the store in memory."""

CLOSE_SECONDS = 5.0
"""How long the end of a server waits for the last write."""

_log = logging.getLogger("fourways.quality")


class Answered(NamedTuple):
    """The answers to one request: when, for which keys (N,), and the values (N,) of the output."""

    at: float
    keys: list[Key]
    values: Array


class AnswerRecorder:
    """The answers of one model server. :meth:`note` may run on any thread."""

    def __init__(
        self,
        config: ServerConfig,
        open_database: Callable[[], Database],
        registry: CollectorRegistry,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``config`` has ``stored``; ``open_database`` opens the store to write in it."""
        assert config.stored is not None, "there is something to store"  # noqa: S101
        self._config = config
        self._compared = Compared.of(config.stored, config.contract)
        self._texts_are_keys = config.contract.entity_key.type == "string"
        self._open = open_database
        self._clock = clock
        self._lock = threading.Lock()
        self._room = ROOM
        self._waiting: list[Answered] = []
        self._chunks: list[tuple[datetime, PastChunk]] = []
        """Answers that could not be written yet. Their times stay, so that a write whose outcome
        is unknown may be repeated: the same answer at the same time counts once."""

        self._database: Database | None = None
        self._key = config.name
        self._reported = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._kept = Counter(
            "fourways_quality_answers",
            "Records whose answers were stored to be compared with labels.",
            registry=registry,
        )
        self._dropped = Counter(
            "fourways_quality_answers_dropped",
            "Records whose answers were not stored, as too many waited for the store.",
            registry=registry,
        )
        self._without_key = Counter(
            "fourways_quality_answers_without_key",
            "Records whose answers were not stored, as no entity key says what they are about.",
            registry=registry,
        )

    def recording(self, render: Render) -> Render:
        """Return what renders responses with ``render``, and notes each."""

        def rendered(inference: UnparsedRequest | InferenceRequest, part: ScoredPart) -> Response:
            response = render(inference, part)
            try:
                self.note(inference, part)
            except Exception:  # noqa: BLE001  (logged; the response does not depend on it)
                self._dropped.inc(inference.rows)
                _log.exception("an answer is not stored")
            return response

        return rendered

    def note(self, inference: UnparsedRequest | InferenceRequest, part: ScoredPart) -> None:
        """Keep the answers to a request until they are written, if there is room."""
        if not inference.rows:
            return
        keys = self._keys_of(inference)
        if keys is None:
            self._without_key.inc(inference.rows)
            return
        if part.bad:
            bad = {row for row, _, _ in part.bad}
            keys = [k for at, k in enumerate(keys) if inference.position(at) not in bad]  # type: ignore[union-attr]
        # A copy: a view would keep the outputs of the whole batch in memory.
        values = part.columns[self._compared.output][part.start : part.stop].copy()
        with self._lock:
            fits = len(keys) <= self._room
            if fits:
                self._room -= len(keys)
                self._waiting.append(Answered(self._clock(), keys, values))
        if not fits:
            self._dropped.inc(len(keys))

    def start(self) -> None:
        """Write at intervals, as long as the process lives."""
        self._thread.start()

    async def close(self) -> None:
        """Write what waits, within :data:`CLOSE_SECONDS`, and stop."""
        self._ended.set()
        await in_thread(lambda: self._thread.join(CLOSE_SECONDS), "answers-end")

    def flush(self) -> None:
        """Write what waits. Raises WorkloadError: it goes on waiting."""
        if not self._waiting and not self._chunks:
            return
        database = self._connected()
        # The time of the database's clock, as for streams: labels are compared by one clock.
        ahead = store_time(database) - self._clock()
        with self._lock:
            taken, self._waiting = self._waiting, []
        chosen = _in_share(taken, self._compared.share)
        left_out = sum(len(each.keys) for each in taken) - sum(len(each.keys) for each in chosen)
        self._chunks += [
            (datetime.fromtimestamp(rows[0].at + ahead, UTC), _packed(rows))
            for rows in sliced(chosen)
        ]
        whose = (self._config.namespace, self._key)
        write_chunks(database, *whose, self._compared.name, self._chunks)
        self._kept.inc(self._forget_chunks(left_out))

    def _keys_of(self, inference: UnparsedRequest | InferenceRequest) -> list[Key] | None:
        """Return the key of each row: its entity key, or the id of a request for one row."""
        keys: list[Key] | None = getattr(inference, "keys", None)
        if keys is not None:
            return keys
        identity: str | None = getattr(inference, "id", None)
        if identity and inference.rows == 1 and self._texts_are_keys:
            return [identity]
        return None

    def _run(self) -> None:
        while not self._ended.wait(FLUSH_SECONDS):
            self._try()
        self._try()
        self._disconnect()

    def _try(self) -> None:
        try:
            self.flush()
            self._reported = ""
        except WorkloadError as error:
            self._disconnect()
            if str(error) != self._reported:
                self._reported = str(error)
                _log.warning("answers wait for the store: %s", error)
        except Exception:  # noqa: BLE001  (logged; requests do not depend on it)
            self._disconnect()
            _log.exception("answers are not stored")
            self._dropped.inc(self._forget_chunks())

    def _forget_chunks(self, left_out: int = 0) -> int:
        """Make room where chunks were; return how many answers they had."""
        rows = sum(chunk.size for _, chunk in self._chunks)
        self._chunks = []
        with self._lock:
            self._room += rows + left_out
        return rows

    def _connected(self) -> Database:
        if self._database is None:
            self._database, self._key = open_claimed(self._open, self._config)
        return self._database

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _in_share(answers: Iterable[Answered], share: float) -> list[Answered]:
    if share == 1.0:
        return list(answers)
    found = []
    for each in answers:
        if chosen := in_share(each.keys, share):
            keys = [each.keys[at] for at in chosen]
            found.append(Answered(each.at, keys, each.values[chosen]))
    return found


def sliced(answers: Iterable[Answered]) -> Iterator[list[Answered]]:
    """Yield the answers, in the order of their times, by the row that they are stored in.

    A row has no key from two requests, as only the last of its predictions would count.
    """
    row: list[Answered] = []
    known: set[Key] = set()
    for each in answers:
        full = bool(row) and (
            each.at - row[0].at >= SLICE_SECONDS
            or len(known) + len(each.keys) > MAX_ROW
            or not known.isdisjoint(each.keys)
        )
        if full:
            yield row
            row, known = [], set()
        row.append(each)
        known.update(each.keys)
    if row:
        yield row


def _packed(row: list[Answered]) -> PastChunk:
    keys = [key for each in row for key in each.keys]
    return packed(keys, np.concatenate([each.values for each in row]))
