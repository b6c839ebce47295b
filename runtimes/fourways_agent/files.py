"""The state folder on the disk: files that survive a power cut, locks, and errors as words.

Writes go through :class:`fourways_runtime.folder_writer.FolderWriter`, as for output folders.
Nothing else in this package writes to the disk, except the cache of device features, a database.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic, sleep

from fourways_runtime.folder_writer import FolderWriter

from .errors import Busy, NoSpace

_LOCK_EVERY = 0.05


class StateFolder(FolderWriter):
    """A folder of the device's state, which only this user can read. Raises NoSpace."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, access="private", one_writer=True)

    def translated(self) -> AbstractContextManager[None]:
        """Translate errors as :func:`disk` does."""
        return disk()


def write(file: Path, raw: bytes) -> None:
    """Replace a file atomically; its folder exists. Raises NoSpace."""
    StateFolder(file.parent).put(file.name, raw)


def rename(aside: Path, file: Path) -> None:
    """Rename a finished file to its final name in the same folder, durably. Raises NoSpace."""
    StateFolder(file.parent).rename(aside.name, file.name)


def delete(path: Path) -> None:
    """Delete a file, or a folder with its contents, if it exists. Raises NoSpace."""
    parent = StateFolder(path.parent)
    if path.is_dir() and not path.is_symlink():
        parent.remove(path.name)
    else:
        parent.delete(path.name)


def free_bytes(folder: Path) -> int:
    """Return the number of free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free


@contextmanager
def disk() -> Iterator[None]:
    """Convert a disk failure to NoSpace, with its cause in the message."""
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno).lower() if error.errno else "failed"
        raise NoSpace(f"the state folder cannot be written: {said}") from None


@contextmanager
def locked(file: Path, *, wait: bool, seconds: float = math.inf) -> Iterator[None]:
    """Hold a lock that is released when the process ends.

    ``wait``: wait until another process releases it, for at most ``seconds``. Raises Busy if it is
    still held, NoSpace.
    """
    with disk():
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, seconds if wait else 0.0)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, seconds: float) -> None:
    deadline = monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if math.isinf(seconds) else fcntl.LOCK_NB))
        except BlockingIOError:
            if monotonic() >= deadline:
                raise Busy("another process is updating this device") from None
            sleep(_LOCK_EVERY)
        else:
            return
