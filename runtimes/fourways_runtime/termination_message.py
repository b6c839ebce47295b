"""Writes a RunReport as the termination message of a workload's pod."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from fourways_api import RunReport

MAX_REPORT_BYTES = 4096
"""The kubelet truncates a termination message to this size."""

logger = logging.getLogger(__name__)


def write_report(report: RunReport, file: str) -> None:
    """Write a report, its message cut to the kubelet's limit; a failure is only logged."""
    message = report.message
    while True:
        text = json.dumps(report.model_copy(update={"message": message}).to_json())
        if len(text.encode()) <= MAX_REPORT_BYTES:
            break
        message = message[: int(len(message) * 0.8)] + "…"
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        logger.warning("termination message not written to %s: %s", file, error.strerror)
