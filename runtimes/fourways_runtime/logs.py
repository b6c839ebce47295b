"""Log lines as JSON objects on stderr, which a cluster's log collector reads without a pattern.

A line contains a time, a level, a logger, a message and the fields given as ``extra``. Callers may
log route patterns and request ids; bodies and entity keys are personal data and never logged. Names
of models and tables do reach the log, so texts are bounded and hidden characters escaped.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime

import orjson

from fourways_api.display import bounded, json_displayed

MESSAGE_LIMIT = 4_000
FIELD_LIMIT = 1_000
TRACEBACK_LIMIT = 8_000
"""Maximum characters of each text in a line."""

LINE_LIMIT = 64_000
"""Maximum characters of a line; a longer one loses its extra fields."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON, with its traceback if it has one."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": bounded(record.getMessage(), MESSAGE_LIMIT),
        }
        fields = {
            name: _bounded(value) for name, value in vars(record).items() if name not in _STANDARD
        }
        if record.exc_info:
            # The innermost frames and the error itself come last.
            line["traceback"] = bounded(self.formatException(record.exc_info), TRACEBACK_LIMIT)
        text = _json(line | fields)
        return text if len(text) <= LINE_LIMIT else _json(line | {"fields_left_out": len(fields)})


LEVEL_VARIABLE = "FOURWAYS_LOG_LEVEL"
"""``warning`` or ``error``; anything else is ``info``. At ``debug``, libraries log headers."""


def log_as_json() -> None:
    """Send all log records of the process to stderr as JSON lines, from the level that is set."""
    levels = {"warning": logging.WARNING, "error": logging.ERROR}
    level = levels.get(os.environ.get(LEVEL_VARIABLE, ""), logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _bounded(value: object) -> object:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, str):
        return bounded(value, FIELD_LIMIT)
    # A list or an object keeps its structure as long as it is short.
    text = _json(value)
    return value if len(text) <= FIELD_LIMIT else bounded(text, FIELD_LIMIT)


def _json(value: object) -> str:
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # A lone surrogate or an integer of more than 64 bits: logging must never fail.
        text = json.dumps(value, default=str)
    return json_displayed(text)
