"""Compares past predictions with labels, at intervals, on a thread of a permanent worker.

Everything is counted anew each time: the labels of the window, and the predictions that the store
keeps for it. So nothing has to be remembered, and a label that comes late or again corrects what
was said before. One worker of a deployment does it, which holds a lock in the store. A comparison
never takes part in scoring, and the pause after it is a multiple of what it took.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import perf_counter, thread_time

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from fourways_api import QualityStatus, RuntimeConfig
from fourways_api.display import displayed
from fourways_api.quality import Quality
from fourways_api.values import seconds
from fourways_runtime.errors import WorkloadError
from fourways_runtime.io.store import past
from fourways_runtime.io.store.database import Database
from fourways_runtime.io.store.owners import open_claimed
from fourways_runtime.scoring.late_truth import is_text, labelled

from .repeating import Repeated, repeat
from .truth import MIN_LABELS, metrics_of, moment, read_labels

MAX_PREDICTIONS = 10_000_000
"""Number of past predictions that are kept, with four more for each micro-batch. Each is read at
each comparison."""

MAX_LABELS = 500_000
"""Maximum number of labels of the window: they are held in the memory of a worker that scores."""

PAUSE, PAUSE_OF_ALL = 100, 10
"""A pause is at least so many times as long as the processor time of the comparison before it, and
as all its time: it may wait for a table, a broker or the store."""

PAUSE_ALONE = 2
"""The same for all its time, where the process does nothing else."""

_FIRST_SECONDS = 2.0
_MAX_MESSAGE = 400

OpenDatabase = Callable[[], Database]

_log = logging.getLogger("fourways.quality")


class QualityWatch:
    """The comparisons of one worker.

    Args:
        config: The worker's configuration; it has ``quality``.
        open_database: Opens the prediction store.
        registry: Where failures are counted.
        now: Returns the time.
        scores: Whether the process also scores, which a comparison must not delay.

    """

    def __init__(
        self,
        config: RuntimeConfig,
        open_database: OpenDatabase,
        registry: CollectorRegistry,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        scores: bool = True,
    ) -> None:
        assert config.quality is not None, "there is something to compare"  # noqa: S101
        self._config = config
        self._quality = config.quality
        self._open = open_database
        self._now = now
        self._pauses = (PAUSE, PAUSE_OF_ALL) if scores else (0, PAUSE_ALONE)
        self._database: Database | None = None
        """The connection that holds the lock."""

        self._key = config.name
        self._failures = Counter(
            "fourways_quality_failures",
            "Comparisons of predictions with labels that failed.",
            registry=registry,
        )
        self.status: QualityStatus | None = None
        """The last comparison; None if another worker compares, or none did so far."""

        self._repeated: Repeated | None = None

    def start(self) -> None:
        """Compare at intervals, as long as the process lives."""
        first = min(seconds(self._quality.interval), _FIRST_SECONDS)
        self._repeated = repeat("quality", self._look, first)

    @property
    def late_seconds(self) -> float:
        """Time (s) that the comparison in progress takes so far, or that the next is overdue."""
        return 0.0 if self._repeated is None else self._repeated.late_seconds

    def look(self) -> None:
        """Compare once, unless another worker does. Errors are reported in the status."""
        try:
            self.status = self._compared() if self._leads() else None
        except WorkloadError as error:
            self._failed(f"not measured: {error}")
        except Exception:  # noqa: BLE001  (logged; predictions do not depend on it)
            _log.exception("predictions are not compared with labels")
            self._failed("not measured: see the log of the worker")

    def close(self) -> None:
        """Let another worker compare."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _look(self) -> float:
        started, worked = perf_counter(), thread_time()
        self.look()
        busy, took = thread_time() - worked, perf_counter() - started
        of_processor, of_all = self._pauses
        return max(seconds(self._quality.interval), of_processor * busy, of_all * took)

    def _leads(self) -> bool:
        if self._database is not None:
            return True
        database, self._key = open_claimed(self._open, self._config)
        try:
            if database.hold("\0".join(("quality", self._config.namespace, self._key))):
                self._database = database
        finally:
            if self._database is None:
                database.close()
        return self._database is not None

    def _compared(self) -> QualityStatus:
        assert self._database is not None, "it leads"  # noqa: S101
        now = self._now()
        status = measure_window(self._config, self._quality, self._database, self._key, now)
        _log.info("compared with labels", extra={"labels": status.labels})
        return status

    def _failed(self, message: str) -> None:
        self._failures.inc()
        _log.warning("%s", message)
        self.close()
        before = self.status or _status(self._quality, self._now(), 0)
        self.status = before.model_copy(update={"message": displayed(message, _MAX_MESSAGE)})


def measure_window(
    config: RuntimeConfig, quality: Quality, data: Database, key: str, now: datetime
) -> QualityStatus:
    """Compare the predictions of the window that ends ``now`` with the labels known for them.

    ``key`` is the deployment's key in the store. Predictions that are no longer needed are deleted.
    Raises WorkloadError.
    """
    whose = (config.namespace, key)
    begin = now - timedelta(seconds=seconds(quality.window))
    past.prune(data, *whose, begin, MAX_PREDICTIONS)
    kept = (*whose, past.Compared.of(quality, config.contract).name)
    oldest = past.oldest(data, *kept)
    if oldest is None:
        return _status(quality, now, 0, message="no predictions in the window so far")
    since = max(begin, oldest)
    narrower = f"{moment(since)}: narrow the table, or quality.window"
    labels = read_labels(config, past.microseconds(since), MAX_LABELS, narrower)
    predictions, chosen = labelled(past.past_batches(data, *kept, since), labels.keys, labels.times)
    found = _status(quality, now, len(chosen), since)
    if len(chosen) < MIN_LABELS:
        few = f"{len(chosen)} labels have a prediction: the metrics need {MIN_LABELS}"
        return found.model_copy(update={"message": _joined(few, labels.left_out)})
    values = np.array(
        predictions, object if is_text(config.contract, quality.output) else np.float64
    )
    metrics = metrics_of(quality, values, labels.labels[np.array(chosen, np.int64)])
    message = _joined(labels.left_out)
    return found.model_copy(update={"metrics": metrics, "message": message})


def _status(
    quality: Quality,
    now: datetime,
    labels: int,
    since: datetime | None = None,
    message: str | None = None,
) -> QualityStatus:
    return QualityStatus(
        output=quality.output,
        since=None if since is None else moment(since),
        labels=labels,
        message=message,
        measured_at=moment(now),
    )


def _joined(*messages: str) -> str | None:
    return displayed("; ".join(filter(None, messages)), _MAX_MESSAGE) or None
