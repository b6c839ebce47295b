"""Writes files beneath a folder, which is opened component by component without links.

The only writer of output folders, bundles and device state. A file is replaced completely or not at
all: its bytes are on disk before it gets its name, and the name is on disk before the call returns.
Reading beneath a folder for models and tables is in :mod:`.beneath`.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, Literal

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20

Access = Literal["umask", "public", "private"]
_MODES: dict[Access, tuple[int, int]] = {
    "umask": (0o777, 0o666),
    "public": (0o755, 0o644),
    "private": (0o700, 0o600),
}


def _unobserved(step: str) -> AbstractContextManager[None]:
    return nullcontext()


on_change: Callable[[str], AbstractContextManager[None]] = _unobserved
"""Entered around each change of the disk, with its description, such as ``rename state.json``.

Tests replace it to stop the process at each change, or to record the disk before it.
"""


class FolderWriter:
    """A folder beneath ``root``, which exists and is trusted; missing parents are created.

    Names are relative to it, with ``/`` between components. Calls raise OSError, or what
    :meth:`translated` makes of it.
    """

    def __init__(
        self,
        root: Path,
        components: tuple[str, ...] = (),
        *,
        access: Access = "umask",
        one_writer: bool = False,
    ) -> None:
        """Set who can access what is written, and whether writers may overlap.

        ``access``: ``public``, other users can read it, whatever the umask; ``private``, only this
        user can. ``one_writer``: never two processes write one file at a time, so that a file left
        unfinished by a power cut is replaced by the next write of the same file.
        """
        self._root = root
        self._components = components
        self._access: Access = access
        self._one_writer = one_writer

    def translated(self) -> AbstractContextManager[None]:
        """Translate OSError; here, raise it unchanged."""
        return nullcontext()

    @contextmanager
    def _parent(self, name: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Open the parent folder of a file; yield its descriptor and the file's own name.

        Raises FileNotFoundError if a folder is missing and ``make`` is false, and OSError for a
        name that leads out of the folder: names may come from files in it.
        """
        parts = [part for part in name.split("/") if part]
        if ".." in parts:
            raise OSError(errno.EINVAL, "a name leads out of the folder")
        *folders, last = parts or ["."]
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for component in (*self._components, *folders):
                if make:
                    self._make(component, handle)
                child = os.open(component, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = child
            yield handle, last
        finally:
            os.close(handle)

    def _make(self, component: str, parent: int) -> None:
        mode = _MODES[self._access][0]
        # Looked at first: most folders exist, and only what changes the disk is a change.
        with suppress(FileNotFoundError):
            os.stat(component, dir_fd=parent, follow_symlinks=False)
            return
        with suppress(FileExistsError), on_change(f"make {component}"):
            os.mkdir(component, mode, dir_fd=parent)
            if self._access == "public":
                os.chmod(component, mode, dir_fd=parent)  # whatever the umask

    def make(self, name: str) -> None:
        """Create a folder and its parents."""
        with self.translated(), self._parent(f"{name}/.", make=True):
            pass

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file under a temporary name, then rename it."""
        with self.translated(), self._parent(name, make=True) as (folder, last):
            with self._written(folder, last) as (temporary, file):
                yield file
            with on_change(f"rename {last}"):
                os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
            _sync_folder(folder, last)

    @contextmanager
    def _written(self, folder: int, last: str) -> Iterator[tuple[str, BinaryIO]]:
        """Yield a temporary name and its file; make both durable, or remove them on an error."""
        ending, flag = ("", os.O_TRUNC) if self._one_writer else (secrets.token_hex(4), os.O_EXCL)
        temporary = f".{last}.new{'-' if ending else ''}{ending}"
        mode = _MODES[self._access][1]
        try:
            with on_change(f"write {last}"):
                handle = os.open(temporary, _WRITE | flag, mode, dir_fd=folder)
            with os.fdopen(handle, "wb") as file:
                yield temporary, file
                file.flush()
                if self._access == "public":
                    os.fchmod(handle, mode)
                with on_change(f"sync {last}"):
                    os.fsync(handle)
        except BaseException:
            with suppress(OSError), on_change(f"delete {temporary}"):
                os.unlink(temporary, dir_fd=folder)
            raise

    @contextmanager
    def resume(self, name: str, at: int) -> Iterator[BinaryIO]:
        """Open a file under its own name and cut it off at byte ``at``, where writing continues.

        If it ends early, its content stays, and is durable only after the context ends normally.
        """
        with self.translated(), self._parent(name, make=True) as (folder, last):
            with on_change(f"open {last}"):
                handle = os.open(last, _WRITE, _MODES[self._access][1], dir_fd=folder)
            with os.fdopen(handle, "wb") as file:
                with on_change(f"truncate {last}"):
                    os.ftruncate(handle, at)
                file.seek(at)
                yield file
                file.flush()
                with on_change(f"sync {last}"):
                    os.fsync(handle)

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Write a small file."""
        if not new:
            with self.create(name) as file:
                file.write(data)
            return True
        with self.translated(), self._parent(name, make=True) as (folder, last):
            with self._written(folder, last) as (temporary, file):
                file.write(data)
            try:
                with on_change(f"link {last}"):
                    os.link(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary, dir_fd=folder)
            _sync_folder(folder, last)
        return True

    def put_file(self, name: str, file: Path) -> None:
        """Copy a local file into place."""
        with self.create(name) as target, file.open("rb") as source:
            shutil.copyfileobj(source, target, _CHUNK)

    def get(self, name: str, most: int | None = None) -> bytes | None:
        """Return a file's content."""
        with self.translated():
            try:
                with self._opened(name) as file:
                    if most is None:
                        return file.read()
                    raw = file.read(most + 1)
                    return raw if len(raw) <= most else None
            except FileNotFoundError:
                return None

    def part(self, name: str, start: int, end: int) -> bytes:
        """Return a byte range of a file."""
        with self.translated(), self._opened(name) as file:
            file.seek(start)
            return file.read(end - start)

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        with self._parent(name, make=False) as (folder, last):
            handle = os.open(last, _OLD, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise FileNotFoundError(name)
                yield file

    def size(self, name: str) -> int | None:
        """Return a file's size."""
        with self.translated():
            try:
                with self._parent(name, make=False) as (folder, last):
                    found = os.stat(last, dir_fd=folder, follow_symlinks=False)
                    return found.st_size if stat.S_ISREG(found.st_mode) else None
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's files, including unfinished ones."""
        with self.translated():
            try:
                with self._parent(f"{folder}/.", make=False) as (handle, _):
                    return sorted(os.listdir(handle))
            except FileNotFoundError:
                return []

    def move(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Move files."""
        for source, target in pairs:
            self.rename(source, target)

    def rename(self, folder: str, to: str) -> None:
        """Rename a file or a folder atomically."""
        with (
            self.translated(),
            self._parent(folder, make=True) as (left, old),
            self._parent(to, make=True) as (entered, new),
        ):
            with suppress(FileNotFoundError), on_change(f"rename {new}"):
                os.rename(old, new, src_dir_fd=left, dst_dir_fd=entered)
            os.stat(new, dir_fd=entered)
            _sync_folder(entered, new)

    def remove(self, folder: str) -> None:
        """Remove a folder and its contents."""
        with (
            self.translated(),
            suppress(FileNotFoundError),
            self._parent(folder, make=False) as (parent, last),
        ):
            child = os.open(last, _FOLDER, dir_fd=parent)
            try:
                for name in os.listdir(child):
                    try:
                        with on_change(f"delete {name}"):
                            os.unlink(name, dir_fd=child)
                    except IsADirectoryError:
                        self.remove(f"{folder}/{name}")
            finally:
                os.close(child)
            with on_change(f"delete {last}"):
                os.rmdir(last, dir_fd=parent)

    def delete(self, name: str) -> None:
        """Delete a file."""
        with (
            self.translated(),
            suppress(FileNotFoundError),
            self._parent(name, make=False) as (folder, last),
            on_change(f"delete {last}"),
        ):
            os.unlink(last, dir_fd=folder)


def _sync_folder(folder: int, last: str) -> None:
    with on_change(f"sync folder of {last}"):
        os.fsync(folder)
