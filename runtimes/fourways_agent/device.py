"""Predictions in this process: ``Device(STATE).predict({"x": …})``.

Owns the loaded model that serves predictions, and replaces it when the pointer changes. Records go
through the same pipeline as in every other mode.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fourways_api.display import displayed
from fourways_runtime.errors import ModelHangs

from .errors import NoModel
from .features import Features
from .loading import LoadedBundle
from .model_calls import CALLS
from .records import counter_of
from .start import boot
from .state import Store

logger = logging.getLogger("fourways.agent")


class Device:
    """The model of this device. Thread-safe; picks up updates by itself."""

    def __init__(self, state: str | Path, *, threads: int = 1) -> None:
        """Load the model from ``state``, the agent's folder. Raises NoModel."""
        self._store = Store(Path(state))
        self._threads = threads
        self._lock = threading.Lock()
        self._mark = self._store.mark()
        self._flush: Callable[[], object] = lambda: None
        self._use(boot(self._store, threads))

    def _use(self, loaded: LoadedBundle) -> None:
        features = None
        if loaded.features is not None:
            features = Features(self._store, loaded.contract, loaded.features)
        self._flush()
        counter = counter_of(self._store, loaded)
        if counter is not None:
            loaded.scorer.profile = counter.notes
            # Also at the end of the program.
            self._flush = weakref.finalize(self, counter.flush)
        self._now = loaded, features, counter

    @property
    def digest(self) -> str:
        """Digest of the bundle that serves predictions."""
        return self._now[0].bundle.digest

    @property
    def version(self) -> str:
        """The model's version, as its deployment names it."""
        return self._now[0].bundle.version

    def predict(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs for one record: by name, plain Python values.

        Inputs that the deployment's device features cover may be omitted if the record has the
        entity key: their values come from the gateway or, offline, from its last response or the
        default.

        Raises:
            fourways_runtime.scoring.single.RecordRefused: a ValueError with the field and the
                reason.
            fourways_runtime.errors.ModelHangs: the model does not return for this record. Others
                are answered, until several have hung: then the program has to be started again.

        """
        if self._store.mark() != self._mark:
            self._follow()
        loaded, features, counter = self._now
        # What is no mapping is refused below, by name.
        if features is not None and isinstance(record, Mapping):
            record = features.completed(record)
        try:
            if counter is not None:
                counter.tick()
            return CALLS.run(lambda: loaded.scorer.ask(record))
        except ModelHangs as error:
            key = loaded.contract.entity_key.name
            about = f"{key} {record[key]!r}" if key in record else f"a record without {key}"
            raise ModelHangs(f"{displayed(about)}: {error}") from None

    def close(self) -> None:
        """Write down what was counted so far; the end of the program does so too."""
        if (counter := self._now[2]) is not None:
            counter.flush()

    def _follow(self) -> None:
        """Start the bundle the pointer names now; keep the one in memory if it does not start."""
        with self._lock:
            mark = self._store.mark()
            if mark == self._mark:
                return  # another thread has already switched
            wanted = self._store.read().digest
            if wanted not in (None, self.digest):
                try:
                    self._use(boot(self._store, self._threads))
                except NoModel as error:
                    logger.error("still serving the model in memory: %s", error)
            # Our own start changes the pointer too; a switch in the meantime is picked up next
            # time.
            after = self._store.mark()
            self._mark = after if self._store.read().digest == wanted else mark
