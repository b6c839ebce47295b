"""Log lines for people: of the operator and of the device agent's commands."""

from __future__ import annotations

import logging
from types import TracebackType

from .display import displayed

MESSAGE_LIMIT = 4_000
TRACEBACK_LIMIT = 16_000
"""Maximum number of characters of a message, and of a traceback."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class TextFormatter(logging.Formatter):
    """Formats a record as one bounded line without hidden characters, then its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (of the base class)
        """Return the line."""
        return displayed(super().formatMessage(record), MESSAGE_LIMIT)

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802  (of the base class)
        """Return a traceback with its line breaks."""
        return displayed(super().formatException(ei), TRACEBACK_LIMIT, lines=True)


def log_as_text(level: int | str, form: str) -> None:
    """Write all log records of the process to standard error, in this format."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
