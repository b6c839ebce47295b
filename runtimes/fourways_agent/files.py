"""Files that survive a power cut at any moment: write aside, sync, rename, sync the folder.

Every step that changes the disk first calls :data:`before`, so that tests can end the process at
each step. Nothing else in this package writes to the disk.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from .errors import Busy, NoSpace


def _nothing(step: str) -> None:
    pass


_LOCK_EVERY = 0.05

before: Callable[[str], None] = _nothing
"""Called before each change of the disk, with its description."""


def write(file: Path, raw: bytes) -> None:
    """Replace a file atomically. Raises NoSpace."""
    aside = file.with_name(f"{file.name}.new")
    with disk():
        before(f"write {file.name}")
        with aside.open("wb") as to:
            to.write(raw)
            to.flush()
            before(f"sync {file.name}")
            os.fsync(to.fileno())
        rename(aside, file)


def rename(aside: Path, file: Path) -> None:
    """Rename a finished file to its final name, durably."""
    before(f"rename {file.name}")
    os.replace(aside, file)
    before(f"sync folder of {file.name}")
    sync_folder(file.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, accessible only to the current user."""
    with disk():
        before(f"make {folder.name}")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def delete(path: Path) -> None:
    """Delete a file, or a folder with its contents, if it exists."""
    before(f"delete {path.name}")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the directory entries of a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
