"""Detect edits of manifests by polling their files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

POLL_SECONDS = 1.0

Stamp = tuple[int, int, int]


async def edits(files: Iterable[Path], poll_seconds: float = POLL_SECONDS) -> AsyncIterator[None]:
    """Yield after each edit of a file, once all files are unchanged for one poll.

    An editor may write a file in several steps, or replace it by a new one.
    """
    watched = list(files)
    known = seen = _stamps(watched)
    while True:
        await asyncio.sleep(poll_seconds)
        before, seen = seen, _stamps(watched)
        if seen == before and seen != known:
            known = seen
            yield


def _stamps(files: Iterable[Path]) -> list[Stamp | None]:
    return [_stamp(file) for file in files]


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
