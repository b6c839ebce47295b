"""From a model's reference to a model that answers: fetched, loaded, checked, warmed up.

Owns the order of these, and how long the model takes: the warm-up finds the largest batch that is
worth keeping on the event loop. Runs on a thread of its own; the server listens meanwhile.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import InputField
from fourways_api.runtime_config import ServerConfig

from ..errors import ModelError, ModelNotLoadable
from ..fetch import Fetched, fetch, resolve
from ..golden import MAX_BYTES, check_vectors, read_vectors
from ..model import load
from ..pipeline import Pipeline
from ..records import Array
from ..sources.cells import numpy_type
from .answer import Renderer
from .question import Reader
from .scoring import Scorer

if TYPE_CHECKING:
    from fourways_api.model import SecretReference

    from ..model.base import Model

logger = logging.getLogger("fourways.serving")

INLINE_SECONDS = 0.001
"""A batch that takes longer leaves the event loop to others."""

_PATIENCE = 0.02
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that answers, and what it takes to ask it."""

    reader: Reader
    scorer: Scorer
    renderer: Renderer
    inline_rows: int
    """Rows the model scores within :data:`INLINE_SECONDS`; 0 where one is too many."""

    digest: str


def load_model(config: ServerConfig) -> Loaded:
    """Fetch, load, check and warm up the model. Raises WorkloadError, naming the cause."""
    model, contract = config.model, config.contract
    expected = config.digest or model.digest
    limit = model.max_size_mi_b * 2**20
    fetched = _fetch(config, model.uri, expected, limit, model.credentials)
    root = _folder(config) if model.allow_external_data else None
    loaded = load(fetched.path, model, threads=config.threads, external_root=root)
    scorer = Scorer(contract, loaded, config.max_batch_rows)
    logger.info("model loaded", extra={"digest": fetched.digest, "version": model.version})
    _check_golden(config, loaded)
    inline_rows = _warm_up(config, scorer)
    logger.info("warmed up", extra={"inline_rows": inline_rows})
    return Loaded(
        Reader(contract, [tensor.name for tensor in loaded.inputs], config.max_batch_rows),
        scorer,
        Renderer(config.name, model.version, contract),
        inline_rows,
        fetched.digest,
    )


def _fetch(
    config: ServerConfig,
    uri: str,
    digest: str | None,
    max_bytes: int,
    credentials: SecretReference | None,
) -> Fetched:
    secret = None
    if credentials is not None:
        secret = Path(config.paths.secrets_root) / credentials.secret_name
    return fetch(
        uri,
        into=Path(config.paths.cache_dir) / "models",
        digest=digest,
        max_bytes=max_bytes,
        policy=config.fetch,
        paths=config.paths,
        credentials=secret,
    )


def _folder(config: ServerConfig) -> Path | None:
    path = resolve(config.model.uri, config.paths)
    return None if path is None else path.parent


def _check_golden(config: ServerConfig, model: Model) -> None:
    golden = config.contract.golden_vectors
    if golden is None:
        return
    fetched = _fetch(config, golden.uri, golden.digest, MAX_BYTES, golden.credentials)
    vectors = read_vectors(fetched.path, config.contract)
    check_vectors(Pipeline(config.contract, model), vectors, golden)
    logger.info("golden vectors agree", extra={"vectors": len(vectors)})


def _warm_up(config: ServerConfig, scorer: Scorer) -> int:
    """Ask about made-up records in ever larger batches; return how many rows are quick enough."""
    record = {field.name: example(field) for field in config.contract.inputs}
    inline, rows = 0, 1
    try:
        scorer.run(_repeated(record, 1), 1)  # the first call is not like the others
        while rows <= config.max_batch_rows:
            if _best_time(scorer, _repeated(record, rows), rows) > INLINE_SECONDS:
                break
            inline, rows = rows, rows * 2
    except ModelError as error:
        if config.contract.golden_vectors is None:
            raise ModelNotLoadable(
                f"the model does not answer a record the contract allows: {error};"
                " narrow the contract, or give golden vectors"
            ) from None
        logger.warning("the model does not answer a made-up record: %s", error)
        return 0
    return config.max_batch_rows if rows > config.max_batch_rows else inline


def _best_time(scorer: Scorer, columns: dict[str, Array], rows: int) -> float:
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


def example(field: InputField) -> Array:
    """Make up a value the contract allows: zero where that is in range, of the field's shape."""
    kind = numpy_type(field.type)
    value: Any = 0
    if field.type == "string":
        value = field.categories[0] if field.categories else ""
    elif field.range is not None:
        lowest, highest = field.range.min, field.range.max
        value = max(0, lowest) if lowest is not None else 0
        value = min(value, highest) if highest is not None else value
        if kind.kind in "iu":
            value = math.ceil(value) if value == lowest else math.floor(value)
    made: Array = np.full(field.shape, value, kind)
    return made
