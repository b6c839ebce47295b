"""Prepare a model for use: fetch it, load it, and check it against its golden vectors.

Every shell (batch, model server, stream worker, bundle build) starts with these steps, in this
order; each step is logged. The calls block, so an event loop runs them on a thread. The process's
watchdog (:mod:`fourways_runtime.model_watch`) monitors every call into the model, here and later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fourways_api import Contract, GoldenVectors, ModelReference, RuntimeConfig, SecretReference
from fourways_api.runtime_config import MODEL_IMAGE_SCHEME, StreamConfig
from fourways_api.training_profile import (
    MAX_PROFILE_BYTES,
    InvalidProfile,
    TrainingProfile,
    read_profile,
)
from fourways_api.values import seconds
from fourways_runtime.errors import ProfileInvalid
from fourways_runtime.io.fetch import Fetched, fetch, resolve
from fourways_runtime.model_watch import LOAD_SECONDS, MODEL_SECONDS, WATCH
from fourways_runtime.scoring.golden import MAX_BYTES, Vector, check_vectors, read_vectors
from fourways_runtime.scoring.labels import MAX_BYTES as MAX_LABEL_BYTES
from fourways_runtime.scoring.labels import read_labels, with_labels
from fourways_runtime.scoring.model import load
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.model.text_model import MAX_BYTES as MAX_TOKENIZER_BYTES
from fourways_runtime.scoring.model.text_model import reading_texts
from fourways_runtime.scoring.model.watched import watched
from fourways_runtime.scoring.pipeline import Pipeline

logger = logging.getLogger("fourways.prepare")

STREAM_SECONDS = 60.0
"""Maximum seconds for one event: its consumer waits for no answer."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that reproduces its golden vectors, bound to its contract."""

    model: Model
    """It reads the contract's texts, not their tokens."""

    pipeline: Pipeline
    """Its contract has all labels, also those of a file."""

    digest: str
    profile: TrainingProfile | None = None
    """The training profile with which records are compared, if they are."""

    vectors: tuple[Vector, ...] = ()
    """The golden vectors, if there are any."""


def prepare(
    config: RuntimeConfig,
    *,
    threads: int | None = None,
    fetched: Callable[[str], None] | None = None,
) -> Prepared:
    """Fetch, load and check the model of a configuration.

    ``threads`` is the number of threads the model may use for one call; the default is the
    configuration's value. ``fetched`` is called with the digest as soon as it is known.

    Raises:
        WorkloadError: The model could not be prepared; the error names the cause.

    """
    reference = config.model
    file = fetch_model(config)
    if fetched is not None:
        fetched(file.digest)
    root = _folder(config, reference) if reference.allow_external_data else None
    with WATCH.doing("loading the model"), WATCH.call(seconds=LOAD_SECONDS):
        loaded = load(file.path, reference, threads=threads or config.threads, external_root=root)
    tokenizer = fetch_tokenizer(config)
    model = watched(reading_texts(loaded, config.contract, tokenizer), call_seconds(config))
    contract = labelled(config)
    pipeline = Pipeline(contract, model)
    logger.info("model loaded", extra={"digest": file.digest, "version": reference.version})
    golden = config.contract.golden_vectors
    vectors: tuple[Vector, ...] = ()
    if golden is not None:
        vectors = fetch_golden(config, golden)
        with WATCH.doing("checking the golden vectors"):
            check_vectors(pipeline, vectors, golden)
        logger.info("golden vectors agree", extra={"vectors": len(vectors)})
    return Prepared(model, pipeline, file.digest, fetch_profile(config), vectors)


def call_seconds(config: RuntimeConfig) -> float:
    """Return how long a call into the model with a single row may take, in seconds."""
    if config.model.call_timeout is not None:
        return seconds(config.model.call_timeout)
    return STREAM_SECONDS if isinstance(config, StreamConfig) else MODEL_SECONDS


def fetch_model(config: RuntimeConfig) -> Fetched:
    """Fetch the model file and verify its digest. Raises WorkloadError."""
    model = config.model
    digest = config.digest or model.digest
    return _fetch(config, _uri_of(model), digest, model.max_size_mi_b * 2**20, model.credentials)


def labelled(config: RuntimeConfig) -> Contract:
    """Return the contract, with its labels if they are in a file. Raises WorkloadError."""
    labels = config.contract.labels
    if labels is None:
        return config.contract
    file = _fetch(config, labels.uri, labels.digest, MAX_LABEL_BYTES, labels.credentials)
    return with_labels(config.contract, read_labels(file.path))


def fetch_tokenizer(config: RuntimeConfig) -> Path | None:
    """Fetch the file of the contract's tokenizer, if it has one. Raises WorkloadError."""
    file = config.contract.tokenizer
    if file is None:
        return None
    return _fetch(config, file.uri, file.digest, MAX_TOKENIZER_BYTES, file.credentials).path


def fetch_golden(config: RuntimeConfig, golden: GoldenVectors) -> tuple[Vector, ...]:
    """Fetch and read golden vectors. Raises WorkloadError."""
    fetched = _fetch(config, golden.uri, golden.digest, MAX_BYTES, golden.credentials)
    return read_vectors(fetched.path, config.contract)


def fetch_profile(config: RuntimeConfig) -> TrainingProfile | None:
    """Fetch and read the training profile; None if the spec has none. Raises WorkloadError."""
    if config.monitoring is None:
        return None
    named = config.monitoring.profile
    fetched = _fetch(config, named.uri, named.digest, MAX_PROFILE_BYTES, named.credentials)
    try:
        return read_profile(fetched.path.read_bytes(), config.contract)
    except InvalidProfile as fault:
        raise ProfileInvalid(f"monitoring.profile: {fault}") from None


def _uri_of(model: ModelReference) -> str:
    """Return where a worker reads the model: in an image, where the node mounted it."""
    if model.image_path is None:
        return model.uri
    return f"{MODEL_IMAGE_SCHEME}:///{model.image_path}"


def _fetch(
    config: RuntimeConfig,
    uri: str,
    digest: str | None,
    max_bytes: int,
    credentials: SecretReference | None,
) -> Fetched:
    root = Path(config.paths.secrets_root)
    return fetch(
        uri,
        into=Path(config.paths.cache_dir) / "models",
        digest=digest,
        max_bytes=max_bytes,
        policy=config.fetch,
        paths=config.paths,
        credentials=root / credentials.secret_name if credentials else None,
    )


def _folder(config: RuntimeConfig, model: ModelReference) -> Path | None:
    path = resolve(_uri_of(model), config.paths)
    return None if path is None else path.parent
