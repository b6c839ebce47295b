"""Mounted Secrets: whether one has changed since it was read.

The kubelet replaces the files of a mounted Secret when the Secret changes, without a signal to the
process that reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FileState = tuple[str, int, int, int]
"""Name, inode, time of modification in nanoseconds, and size in bytes."""


def state_of(files: Iterable[Path]) -> tuple[FileState, ...]:
    """Return what differs after a file was added, removed, replaced or written. Blocks."""
    found = []
    for file in sorted(files):
        try:
            stat = file.stat()
        except OSError:
            continue  # it is gone, which is a difference too
        found.append((file.name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)
