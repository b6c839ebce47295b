"""A verified bundle's model in this process, and the tests that it works."""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from fourways_api import Contract
from fourways_api.base import SKIP_RULES
from fourways_api.modes import FeatureLookup
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import ModelError
from fourways_runtime.model_watch import LOAD_SECONDS, WATCH
from fourways_runtime.scoring.agreement import differences
from fourways_runtime.scoring.golden import read_vectors
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.model.on_device import load_on_device
from fourways_runtime.scoring.model.watched import watched
from fourways_runtime.scoring.single import RecordRefused, RecordScorer

from .errors import BundleRefused, ModelUnusable
from .slot import Bundle

_PROOFS = 8
"""Golden vectors to try for one response: the model may be allowed to get a few wrong."""


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """A bundle whose model is in memory."""

    bundle: Bundle
    contract: Contract
    model: Model
    scorer: RecordScorer
    features: FeatureLookup | None

    def self_test(self) -> dict[str, Any]:
        """Score every golden vector; return the figures. Raises ModelUnusable."""
        golden = self.contract.golden_vectors
        if golden is None:
            raise ModelUnusable("the contract names no golden vectors")
        vectors = read_vectors(self.bundle.files[layout.GOLDEN_FILE], self.contract)
        started = perf_counter()
        with WATCH.doing("checking the golden vectors"):
            faults = [text for text in differences(self.scorer, vectors, golden) if text]
        each = (perf_counter() - started) / len(vectors)
        agreement = (len(vectors) - len(faults)) / len(vectors)
        if agreement < self.bundle.agreement:
            raise ModelUnusable(
                f"{agreement:.4f} of {len(vectors)} golden vectors agree on this device, and at"
                f" least {self.bundle.agreement:g} must; {faults[0]}"
            )
        return {"agreement": agreement, "vectors": len(vectors), "mean_ms": each * 1000}

    def proof(self) -> None:
        """Get one response from the model. Raises ModelUnusable, or whatever the model raises."""
        vectors = read_vectors(self.bundle.files[layout.GOLDEN_FILE], self.contract)
        fault: Exception | None = None
        for vector in vectors[:_PROOFS]:
            try:
                self.scorer.ask(vector.inputs)
            except (ModelError, RecordRefused) as error:
                fault = error
            else:
                return
        raise ModelUnusable(f"the model does not answer: {fault}")


def load(bundle: Bundle, threads: int = 1) -> LoadedBundle:
    """Load a verified bundle's model. Raises WorkloadError, BundleRefused."""
    try:
        raw = bundle.files[layout.CONTRACT_FILE].read_bytes()
        contract = Contract.model_validate_json(raw, context=SKIP_RULES)
    except ValueError:
        raise BundleRefused(
            "this agent does not support the bundle's contract; update the agent"
        ) from None
    with WATCH.doing("loading the model"), WATCH.call(seconds=LOAD_SECONDS):
        model = watched(load_on_device(contract, bundle.files, threads=threads))
    return LoadedBundle(bundle, contract, model, RecordScorer(contract, model), _features(bundle))


def _features(bundle: Bundle) -> FeatureLookup | None:
    file = bundle.files.get(layout.FEATURES_FILE)
    if file is None:
        return None
    found = json.loads(file.read_bytes())
    # The database stays in the cluster; on a device, the gateway takes its place.
    place = {"database": {"secretName": "gateway"}, "table": "gateway"}
    try:
        return FeatureLookup.model_validate(found | place, context=SKIP_RULES)
    except ValueError:
        raise BundleRefused(
            "this agent does not support the bundle's features; update the agent"
        ) from None


def lacks_memory(error: Exception) -> bool:
    """Return whether a failure means that memory ran out, which is not the model's fault."""
    text = str(error)
    return "bad_alloc" in text or "Failed to allocate memory" in text or "bad allocation" in text
