"""Answers in this process: ``Device(STATE).predict({"x": …})``.

Owns which loaded model answers, and the change to another one when the pointer changes. Records go
through the pipeline of every other mode.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import NoModel
from .features import Features
from .loading import LoadedBundle
from .start import boot
from .state import Store

logger = logging.getLogger("fourways.agent")


class Device:
    """The model of this device. Safe to use from several threads; follows updates by itself."""

    def __init__(self, state: str | Path, *, threads: int = 1) -> None:
        """``state`` is the agent's folder. Raises NoModel."""
        self._store = Store(Path(state))
        self._threads = threads
        self._lock = threading.Lock()
        self._mark = self._store.mark()
        self._use(boot(self._store, threads))

    def _use(self, loaded: LoadedBundle) -> None:
        features = None
        if loaded.features is not None:
            features = Features(self._store, loaded.contract, loaded.features)
        self._now = loaded, features

    @property
    def digest(self) -> str:
        """Digest of the bundle that answers."""
        return self._now[0].bundle.digest

    @property
    def version(self) -> str:
        """The model's version, as its deployment names it."""
        return self._now[0].bundle.version

    def predict(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs for one record: by name, plain Python values.

        Inputs the deployment's features cover may be left out where the record has the entity
        key: the gateway is asked, or offline its last answer or the default is used.

        Raises:
            fourways_runtime.scoring.single.RecordRefused: a ValueError naming field and reason.

        """
        if self._store.mark() != self._mark:
            self._follow()
        loaded, features = self._now
        if features is not None:
            record = features.completed(record)
        return loaded.scorer.ask(record)

    def _follow(self) -> None:
        """Start the bundle the pointer names now; go on with the one in memory if it does not."""
        with self._lock:
            mark = self._store.mark()
            if mark == self._mark:
                return  # another thread has followed
            wanted = self._store.read().digest
            if wanted not in (None, self.digest):
                try:
                    self._use(boot(self._store, self._threads))
                except NoModel as error:
                    logger.error("the model in memory goes on answering: %s", error)
            # Our own start changes the pointer too; a switch meanwhile is followed next time.
            after = self._store.mark()
            self._mark = after if self._store.read().digest == wanted else mark
