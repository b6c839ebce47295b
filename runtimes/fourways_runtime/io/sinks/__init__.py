"""Destinations of predictions other than the prediction store.

Importing the package is cheap; a sink loads its dependencies when it is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fourways_runtime.errors import ConfigError

if TYPE_CHECKING:
    from fourways_api import Contract, FetchPolicy, Paths
    from fourways_api.modes import Sink as SinkSpec

    from .base import PredictionSink

KEEP_RUNS = 3
"""Default number of runs that a Parquet folder keeps."""


def open_sink(
    sink: SinkSpec,
    contract: Contract,
    run: str,
    *,
    policy: FetchPolicy,
    paths: Paths,
    keep_runs: int = KEEP_RUNS,
) -> PredictionSink:
    """Return the sink for a run's predictions.

    Raises:
        ConfigError: the sink's settings are invalid, or a library it needs is missing.

    """
    if sink.table is not None:
        from .table import PostgresTableSink

        return PostgresTableSink(sink.table, contract, run, paths, policy)
    if sink.files is None:
        raise ConfigError("the sink names neither files nor a table")
    from ..folders import open_folder

    secret = None
    if sink.files.credentials is not None:
        secret = Path(paths.secrets_root) / sink.files.credentials.secret_name
    place = open_folder(sink.files.uri, secret=secret, policy=policy, paths=paths)
    if sink.files.format == "Delta":
        from .delta import DeltaSink

        return DeltaSink(place, contract, run)
    from .parquet import ParquetSink

    return ParquetSink(place, contract, run, keep_runs)
