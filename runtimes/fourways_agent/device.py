"""Answers in this process: ``Device(STATE).predict({"x": …})``.

Owns the start from the pointer: how often a new model was started is written down before it is
loaded, so that one that crashes the process is given up after a few starts; one that answers is
confirmed. Records go through the pipeline of every other mode.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from fourways_api import Contract
from fourways_api.base import SKIP_RULES
from fourways_api.modes import FeatureLookup
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import ModelError, WorkloadError
from fourways_runtime.scoring.agreement import differences
from fourways_runtime.scoring.golden import read_vectors
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.model.onnx_model import load_onnx
from fourways_runtime.scoring.single import RecordRefused, RecordScorer, leave_out_pandas

from .errors import AgentError, Failed, NoModel, Refused
from .features import Features
from .slot import Bundle, open_bundle
from .state import MAX_BOOTS, State, Store

logger = logging.getLogger("fourways.agent")

_PROOFS = 8
"""Golden vectors tried for an answer: a few may be ones the model is allowed to get wrong."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A bundle's model, ready to be asked."""

    bundle: Bundle
    contract: Contract
    model: Model
    asker: RecordScorer
    features: FeatureLookup | None

    def self_test(self) -> dict[str, Any]:
        """Ask about every golden vector; return the figures. Raises Failed."""
        golden = self.contract.golden_vectors
        if golden is None:
            raise Failed("the contract names no golden vectors")
        vectors = read_vectors(self.bundle.files[layout.GOLDEN_FILE], self.contract)
        started = perf_counter()
        told = [text for text in differences(self.asker, vectors, golden) if text]
        each = (perf_counter() - started) / len(vectors)
        agreement = (len(vectors) - len(told)) / len(vectors)
        if agreement < self.bundle.agreement:
            raise Failed(
                f"{agreement:.4f} of {len(vectors)} golden vectors agree on this device,"
                f" {self.bundle.agreement:g} must; {told[0]}"
            )
        return {"agreement": agreement, "vectors": len(vectors), "mean_ms": each * 1000}

    def proof(self) -> None:
        """Get one answer out of the model. Raises Failed, or as the model does."""
        vectors = read_vectors(self.bundle.files[layout.GOLDEN_FILE], self.contract)
        fault: Exception | None = None
        for vector in vectors[:_PROOFS]:
            try:
                self.asker.ask(vector.inputs)
            except (ModelError, RecordRefused) as error:
                fault = error
            else:
                return
        raise Failed(f"the model does not answer: {fault}")


def load(bundle: Bundle, threads: int = 1) -> Loaded:
    """Load a verified bundle's model. Raises WorkloadError, Refused."""
    leave_out_pandas()
    try:
        raw = bundle.files[layout.CONTRACT_FILE].read_bytes()
        contract = Contract.model_validate_json(raw, context=SKIP_RULES)
    except ValueError:
        raise Refused(
            "the bundle's contract is not one this agent knows; update the agent"
        ) from None
    model = load_onnx(bundle.files[layout.MODEL_FILE], threads=threads)
    return Loaded(bundle, contract, model, RecordScorer(contract, model), _features(bundle))


def _features(bundle: Bundle) -> FeatureLookup | None:
    file = bundle.files.get(layout.FEATURES_FILE)
    if file is None:
        return None
    found = json.loads(file.read_bytes())
    # The database stays behind; for a device the gateway stands in its place.
    place = {"database": {"secretName": "gateway"}, "table": "gateway"}
    try:
        return FeatureLookup.model_validate(found | place, context=SKIP_RULES)
    except ValueError:
        raise Refused("the bundle's features are not ones this agent knows") from None


def boot(store: Store, threads: int = 1) -> Loaded:
    """Start the model the pointer names, or the one before it.

    Raises:
        NoModel: there is none that answers.

    """

    def counted(state: State) -> State:
        if state.slot is None or state.confirmed:
            return state
        if state.boots >= MAX_BOOTS:
            logger.error("given up: %s was started %d times", state.digest, state.boots)
            return state.fallen_back(bad=True)
        return replace(state, boots=state.boots + 1)

    state = store.change(counted)
    if state.slot is None or state.digest is None:
        raise NoModel("there is no model on this device yet; fourways-agent update fetches it")
    try:
        loaded = load(open_bundle(store.slot(state.slot), state.digest), threads)
        loaded.proof()
    except (AgentError, WorkloadError) as error:
        return _way_back(store, state, error, threads)
    if not state.confirmed:
        store.change(lambda now: _confirmed(now, state))
    return loaded


def _confirmed(now: State, started: State) -> State:
    if (now.slot, now.digest) != (started.slot, started.digest):
        return now  # another process has switched meanwhile
    return replace(now, confirmed=True, boots=0)


def _way_back(store: Store, state: State, error: Exception, threads: int) -> Loaded:
    """Start the slot before; give this one up where it will not get better."""
    logger.error("the model in slot %s does not start: %s", state.slot, error)
    damaged = isinstance(error, Refused)
    if damaged or state.boots >= MAX_BOOTS:

        def given_up(now: State) -> State:
            return now.fallen_back(bad=not damaged) if now.digest == state.digest else now

        store.change(given_up)
    if state.previous_slot is None or state.previous_digest is None:
        raise NoModel(f"the model on this device does not start: {error}") from None
    try:
        bundle = open_bundle(store.slot(state.previous_slot), state.previous_digest)
        return load(bundle, threads)
    except (AgentError, WorkloadError) as second:
        raise NoModel(f"neither model on this device starts: {error}; {second}") from None


class Device:
    """The model of this device. Safe to use from several threads; follows updates by itself."""

    def __init__(self, state: str | Path, *, threads: int = 1) -> None:
        """``state`` is the agent's folder. Raises NoModel."""
        self._store = Store(Path(state))
        self._threads = threads
        self._lock = threading.Lock()
        self._mark = self._store.mark()
        self._use(boot(self._store, threads))

    def _use(self, loaded: Loaded) -> None:
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
        key: the gateway is asked, or offline the last it said, or the default holds.

        Raises:
            fourways_runtime.scoring.single.Refused: a ValueError naming field and reason.

        """
        if self._store.mark() != self._mark:
            self._follow()
        loaded, features = self._now
        if features is not None:
            record = features.completed(record)
        return loaded.asker.ask(record)

    def _follow(self) -> None:
        with self._lock:
            mark = self._store.mark()
            if mark != self._mark and self._store.read().digest != self.digest:
                try:
                    self._use(boot(self._store, self._threads))
                except NoModel as error:
                    logger.error("the model in memory goes on: %s", error)
            self._mark = self._store.mark()
