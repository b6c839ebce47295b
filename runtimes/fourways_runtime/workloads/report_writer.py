"""Writes what a worker knows of itself into the store, on a thread of its own.

It has a connection of its own too, so a store that hangs or refuses a report delays nothing else,
and counts as no fault of its work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from fourways_api import RuntimeConfig
from fourways_runtime.errors import WorkloadError
from fourways_runtime.io.store.database import Database
from fourways_runtime.io.store.owners import open_claimed
from fourways_runtime.io.store.reports import write_report

from .repeating import repeat

REPORT_SECONDS = 5.0

_log = logging.getLogger("fourways.reports")


class ReportWriter:
    """The reports of one worker, under its name ``worker``."""

    def __init__(
        self,
        config: RuntimeConfig,
        open_database: Callable[[], Database],
        worker: str,
        report: Callable[[], dict[str, Any]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._config = config
        self._open = open_database
        self._worker = worker
        self._report = report
        self._database: Database | None = None
        self._key = config.name
        self._clock = clock
        self._told_at = clock()

    @property
    def silent_seconds(self) -> float:
        """Time (s) since the store took a report, or since this object was made."""
        return self._clock() - self._told_at

    def start(self) -> None:
        """Report as long as the process lives."""
        repeat("reports", self._tried, REPORT_SECONDS)

    def tell(self) -> None:
        """Write one report. Raises WorkloadError."""
        if self._database is None:
            self._database, self._key = open_claimed(self._open, self._config)
        namespace = self._config.namespace
        write_report(self._database, namespace, self._key, self._worker, self._report())
        self._told_at = self._clock()

    def close(self) -> None:
        """Close the connection."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _tried(self) -> float:
        try:
            self.tell()
        except WorkloadError as error:
            _log.info("not reported to the store: %s", error)
            self.close()
        except Exception:  # noqa: BLE001  (logged; nothing else depends on it)
            _log.exception("not reported to the store")
            self.close()
        return REPORT_SECONDS
