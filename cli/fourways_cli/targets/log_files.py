"""Lines of log files on this machine: the last ones, and those that are added."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from .observed import LogLine, LogQuery, last_lines

FOLLOW_SECONDS = 0.2
MOST_BYTES = 16 << 20
"""Bytes of a log that are read from its end."""


def log_lines(files: Mapping[str, Path], query: LogQuery) -> Iterator[LogLine]:
    """Yield the last lines of logs, by the names of their writers; then new ones, if followed.

    A file that does not exist yet is empty.
    """
    ends: dict[str, int] = {}
    for source, file in files.items():
        text, ends[source] = _read(file, query.follow)
        for line in last_lines(text, query.tail):
            yield LogLine(source, line)
    while query.follow:
        time.sleep(FOLLOW_SECONDS)
        for source, file in files.items():
            text, ends[source] = _read(file, whole=True, begin=ends[source])
            for line in text.splitlines():
                yield LogLine(source, line)


def _read(file: Path, whole: bool, begin: int | None = None) -> tuple[str, int]:
    """Return a file's text and its end, of ``whole`` lines only if asked.

    ``begin`` is where to start; None: at its last bytes, after the first line end if it is longer.
    """
    if not file.exists():
        return "", 0
    size = file.stat().st_size
    start = max(0, size - MOST_BYTES) if begin is None else begin
    with file.open("rb") as log:
        log.seek(start)
        text = log.read(MOST_BYTES)
    if begin is None and start:
        _, _, text = text.partition(b"\n")
        start = size - len(text)
    if whole:
        # A line that is still being written is read when it has an end.
        head, newline, _ = text.rpartition(b"\n")
        text = head + newline
    return text.decode(errors="replace"), start + len(text)
