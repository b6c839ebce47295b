"""The build's process: its configuration, termination message and exit code."""

from __future__ import annotations

import logging

from fourways_api import RunReport
from fourways_api.runtime_config import EdgeConfig
from fourways_runtime.config import read_edge_config
from fourways_runtime.process import end_with, run_job

from ..place_watch import PlaceWatch

logger = logging.getLogger("fourways.edge")


def main() -> int:
    """Build once; return an exit code from ``fourways_runtime.errors``."""
    return run_job(read_edge_config, _build, logger)


def _build(config: EdgeConfig) -> RunReport:
    from .build import build

    places = PlaceWatch()
    places.start(lambda error: end_with(error, config, logger))
    return build(config, places)
