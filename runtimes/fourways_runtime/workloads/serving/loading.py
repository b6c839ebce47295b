"""Turns a model reference into a model that serves: fetch, load, check, warm up.

Owns the order of these steps, and the first measurement of the model's speed, which real batches
refine. Runs on a thread of its own while the server already listens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from fourways_api import InputField
from fourways_api.runtime_config import ServerConfig
from fourways_api.training_profile import TrainingProfile
from fourways_runtime.errors import ModelError, ModelNotLoadable
from fourways_runtime.model_watch import WATCH
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.images import EXAMPLE
from fourways_runtime.scoring.model.library_errors import model_error
from fourways_runtime.scoring.values import numpy_type
from fourways_runtime.v2.enrichment import covered
from fourways_runtime.v2.placement import INLINE_SECONDS
from fourways_runtime.v2.request import RequestReader
from fourways_runtime.v2.response import Renderer
from fourways_runtime.v2.scorer import RequestScorer
from fourways_runtime.v2.templates import RequestTemplates

from ..prepare import prepare

logger = logging.getLogger("fourways.serving")

_PATIENCE = 0.02
_TRIES = 3
_SIZES = (1, 16, 64, 256)
"""Sizes that are tried for a dimension of any size: some models fail on a single element."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that serves, and the parts needed to query it."""

    reader: RequestTemplates
    scorer: RequestScorer
    renderer: Renderer
    warm_up: tuple[tuple[int, float], ...]
    """Rows and seconds of batches of synthetic records; empty if the model fails on them."""

    digest: str
    known: dict[str, Any]
    """Inputs of a record by name, of which the model's response is known; empty if of none."""

    profile: TrainingProfile | None = None
    """The training profile with which records are compared, if they are."""


def load_model(config: ServerConfig) -> Loaded:
    """Fetch, load, check and warm up the model. Raises WorkloadError, naming the cause."""
    left_out = covered(config.features, config.contract)
    prepared = prepare(config)
    model, contract = prepared.model, prepared.pipeline.contract
    scorer = RequestScorer(contract, model, config.max_batch_rows)
    with WATCH.doing("warming up"):
        warm_up = _warm_up(config, scorer)
    logger.info("warmed up", extra={"seconds_by_rows": {n: round(s, 6) for n, s in warm_up}})
    names = [tensor.name for tensor in model.inputs]
    most = config.max_body_bytes
    reader = RequestReader(contract, names, config.max_batch_rows, left_out, max_body_bytes=most)
    return Loaded(
        RequestTemplates(reader),
        scorer,
        Renderer(config.name, config.model.version, contract),
        tuple(warm_up),
        prepared.digest,
        prepared.vectors[0].inputs if prepared.vectors else {},
        prepared.profile,
    )


def _warm_up(config: ServerConfig, scorer: RequestScorer) -> list[tuple[int, float]]:
    """Score synthetic records in ever larger batches, as long as that is quick; return rows and
    seconds."""
    measured: list[tuple[int, float]] = []
    rows = 1
    try:
        record = _accepted(config.contract.flat_inputs, scorer)
        while rows <= config.max_batch_rows:
            seconds = _best_time(scorer, _repeated(record, rows), rows)
            measured.append((rows, seconds))
            if seconds > INLINE_SECONDS:
                break
            rows *= 2
    except ModelError as error:
        if config.contract.golden_vectors is None:
            raise ModelNotLoadable(
                f"the model fails on a record that the contract allows: {model_error(error)};"
                " narrow the contract, or give golden vectors"
            ) from None
        logger.warning("the model fails on a generated record: %s", error)
    return measured


def _accepted(fields: Sequence[InputField], scorer: RequestScorer) -> dict[str, Array]:
    """Score a made-up record, and return it. Raises ModelError if the model fails on all sizes."""
    sizes = _SIZES if any(field.is_free for field in fields) else (1,)
    for size in sizes:
        record = {field.name: example(field, size) for field in fields}
        try:
            scorer.run(_repeated(record, 1), 1)  # the first call is not representative
        except ModelError:
            if size == sizes[-1]:
                raise
        else:
            break
    return record


def _best_time(scorer: RequestScorer, columns: dict[str, Array], rows: int) -> float:
    best = math.inf
    for _ in range(_TRIES):
        started = perf_counter()
        scorer.run(columns, rows)
        best = min(best, perf_counter() - started)
        if best > _PATIENCE:
            break
    return best


def _repeated(record: dict[str, Array], rows: int) -> dict[str, Array]:
    return {name: np.repeat(value[np.newaxis], rows, axis=0) for name, value in record.items()}


def example(field: InputField, size: int = 1) -> Array:
    """Make up a value that the contract allows: zero if in range, in the field's shape.

    ``size`` is that of dimensions that may have any.
    """
    kind = numpy_type(field.type)
    value: Any = 0
    if field.type == "bytes":
        value = EXAMPLE if field.image is not None else b""
    elif field.type == "string":
        value = field.categories[0] if field.categories else ""
    elif field.range is not None:
        lowest, highest = field.range.min, field.range.max
        value = max(0, lowest) if lowest is not None else 0
        value = min(value, highest) if highest is not None else value
        if kind.kind in "iu":
            value = math.ceil(value) if value == lowest else math.floor(value)
    made: Array = np.full([size if each == -1 else each for each in field.shape], value, kind)
    return made
