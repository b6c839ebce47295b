"""A folder on this host or on a volume claim, opened component by component without links.

A file is replaced completely or not at all: its bytes are on disk before it gets its name, and the
name is on disk before the call returns.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .folder import FolderErrors

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20


class LocalFolder:
    """A folder beneath ``root``, which exists and is trusted; missing parents are created."""

    def __init__(
        self,
        shown: str,
        backend: Any,
        path: str,
        root: Path,
        components: tuple[str, ...],
        errors: FolderErrors,
        *,
        public: bool = False,
    ) -> None:
        """``public``: other users can read the files written here, whatever the umask."""
        self.shown = shown
        self.backend = backend
        self.path = path
        self._root = root
        self._components = components
        self._errors = errors
        self._public = public

    def translated(self) -> AbstractContextManager[None]:
        """Translate errors of reads and writes into the folder's errors."""
        return self._errors.translated(self.shown)

    @contextmanager
    def _parent(self, name: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Open the parent folder of a file; yield its descriptor and the file's own name.

        Raises FileNotFoundError if a folder is missing and ``make`` is false.
        """
        *folders, last = [part for part in name.split("/") if part] or ["."]
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
        with suppress(FileExistsError):
            os.mkdir(component, dir_fd=parent)
            if self._public:
                os.chmod(component, 0o755, dir_fd=parent)  # noqa: S103  (the gateway reads it)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file under a temporary name, then rename it."""
        with self.translated(), self._parent(name, make=True) as (folder, last):
            with self._written(folder, last) as (temporary, file):
                yield file
            os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    @contextmanager
    def _written(self, folder: int, last: str) -> Iterator[tuple[str, BinaryIO]]:
        """Yield a temporary name and its file; make both durable, or remove them on an error."""
        temporary = f".{last}.new-{secrets.token_hex(4)}"
        try:
            handle = os.open(temporary, _NEW, 0o644 if self._public else 0o666, dir_fd=folder)
            with os.fdopen(handle, "wb") as file:
                yield temporary, file
                file.flush()
                if self._public:
                    os.fchmod(handle, 0o644)
                os.fsync(handle)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

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
                os.link(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary, dir_fd=folder)
            os.fsync(folder)
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
            with suppress(FileNotFoundError):
                os.rename(old, new, src_dir_fd=left, dst_dir_fd=entered)
            os.stat(new, dir_fd=entered)
            os.fsync(entered)

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
                        os.unlink(name, dir_fd=child)
                    except IsADirectoryError:
                        self.remove(f"{folder}/{name}")
            finally:
                os.close(child)
            os.rmdir(last, dir_fd=parent)

    def delete(self, name: str) -> None:
        """Delete a file."""
        with (
            self.translated(),
            suppress(FileNotFoundError),
            self._parent(name, make=False) as (folder, last),
        ):
            os.unlink(last, dir_fd=folder)
