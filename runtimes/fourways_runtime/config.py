"""A workload's configuration: one JSON document in its environment, read only here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from fourways_api import ApiModel, GatewayConfig, PurgeConfig, RuntimeConfig
from fourways_api.base import SKIP_RULES
from fourways_api.runtime_config import (
    CONFIG_VARIABLE,
    RUN_VARIABLE,
    EdgeConfig,
    QualityConfig,
    ServerConfig,
    StreamConfig,
)

from .errors import ConfigError

T = TypeVar("T", bound=ApiModel)


def read_config(environment: Mapping[str, str] = os.environ) -> RuntimeConfig:
    """Return a worker's configuration. Raises ConfigError."""
    return _read(RuntimeConfig, environment)


def read_gateway_config(environment: Mapping[str, str] = os.environ) -> GatewayConfig:
    """Return a gateway's configuration. Raises ConfigError."""
    return _read(GatewayConfig, environment)


def read_server_config(environment: Mapping[str, str] = os.environ) -> ServerConfig:
    """Return a model server's configuration. Raises ConfigError."""
    return _read(ServerConfig, environment)


def read_stream_config(environment: Mapping[str, str] = os.environ) -> StreamConfig:
    """Return a stream worker's configuration. Raises ConfigError."""
    return _read(StreamConfig, environment)


def read_quality_config(environment: Mapping[str, str] = os.environ) -> QualityConfig:
    """Return a quality worker's configuration. Raises ConfigError."""
    return _read(QualityConfig, environment)


def read_edge_config(environment: Mapping[str, str] = os.environ) -> EdgeConfig:
    """Return a bundle build's configuration. Raises ConfigError."""
    return _read(EdgeConfig, environment)


def read_purge_config(environment: Mapping[str, str] = os.environ) -> PurgeConfig:
    """Return a purge's configuration. Raises ConfigError."""
    return _read(PurgeConfig, environment)


def read_run(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the batch run. Raises ConfigError."""
    run = environment.get(RUN_VARIABLE, "")
    if not run:
        raise ConfigError(f"{RUN_VARIABLE} is not set: a run needs a name")
    return run


def _read(kind: type[T], environment: Mapping[str, str]) -> T:
    text = environment.get(CONFIG_VARIABLE)
    if not text:
        raise ConfigError(f"{CONFIG_VARIABLE} is not set")
    try:
        config = kind.model_validate_json(text, context=SKIP_RULES)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise ConfigError(f"{CONFIG_VARIABLE}: {where}: {first['msg']}") from None
    if isinstance(config, RuntimeConfig):
        return config.with_own_secrets()
    return config
