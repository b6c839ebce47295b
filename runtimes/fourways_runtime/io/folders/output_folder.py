"""A folder predictions are written to: on this host, on a claim, or in an object store.

Owns writing: every file is durable and whole once its writer is closed, and no link is followed.
Names are relative to the folder, at most two deep. Policy and credentials are the fetcher's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from fourways_api import FetchPolicy, Paths
from fourways_runtime.errors import (
    ConfigError,
    FetchRefused,
    SinkUnavailable,
    SourceError,
    StoreFull,
    WorkloadError,
)

from ..fetch import filesystem
from ..fetch.local import locate
from ..fetch.location import Location, check_scheme

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(Protocol):
    """A folder. Every call may raise ConfigError or SinkUnavailable."""

    shown: str
    backend: Any
    """An fsspec filesystem that reads here."""

    path: str
    """The folder's path in it."""

    def create(self, name: str) -> Any:
        """Open a new file for writing, for use in ``with``; it is there, durable, at the end."""
        ...

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Write a small file at once; False where it must be ``new`` and is not."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return a file's content, None where there is none."""
        ...

    def part(self, name: str, start: int, end: int) -> bytes:
        """Return some of a file's bytes."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's files, none where there is no folder."""
        ...

    def move(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Move files; one that is not there any more has been moved before."""
        ...

    def rename(self, folder: str, to: str) -> None:
        """Rename a folder, at once where the place can."""
        ...

    def remove(self, folder: str) -> None:
        """Remove a folder and its files, if it is there."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...


def open_place(uri: str, *, secret: Path | None, policy: FetchPolicy, paths: Paths) -> Place:
    """Return the folder a URI names. Raises ConfigError, FetchRefused."""
    location = Location.parse(uri.rstrip("/"))
    check_scheme(location, policy)
    backend, path = filesystem(location.uri, credentials=secret, policy=policy, paths=paths)
    if location.scheme in ("file", "pvc"):
        root, components = locate(location, paths)
        return LocalPlace(location.shown, backend, path, root, components)
    if location.scheme in ("s3", "gs", "az"):
        return ObjectPlace(location.shown, backend, path)
    raise ConfigError(f"{location.shown}: predictions are not written there")


@contextmanager
def written(shown: str) -> Iterator[None]:
    """Turn what writing raises into our errors, without texts of others: they quote bodies."""
    try:
        yield
    except SourceError as error:
        raise SinkUnavailable(str(error)) from None
    except WorkloadError:
        raise
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else type(error).__name__
        if error.errno in _FULL:
            raise StoreFull(f"{shown}: {said.lower()}") from None
        if error.errno in _DENIED or isinstance(error, PermissionError):
            raise ConfigError(f"{shown}: writing is not allowed ({said.lower()})") from None
        if error.errno == errno.ELOOP:
            raise FetchRefused(f"{shown}: a link is in the way; write the real path") from None
        raise SinkUnavailable(f"{shown}: {said.lower()}") from None
    except Exception as error:  # noqa: BLE001  (each backend has a tree of its own)
        raise SinkUnavailable(f"{shown}: writing failed ({type(error).__name__})") from None


class LocalPlace:
    """A folder on this host, reached from a folder that is trusted through no link."""

    def __init__(
        self, shown: str, backend: Any, path: str, root: Path, components: tuple[str, ...]
    ) -> None:
        self.shown = shown
        self.backend = backend
        self.path = path
        self._root = root
        self._components = components

    @contextmanager
    def _folder(self, *names: str, make: bool = True) -> Iterator[int]:
        with written(self.shown):
            handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for name in (*self._components, *names):
                    if make:
                        with suppress(FileExistsError):
                            os.mkdir(name, dir_fd=handle)
                    child = os.open(name, _FOLDER, dir_fd=handle)
                    os.close(handle)
                    handle = child
                yield handle
            finally:
                os.close(handle)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file; its name is in its folder only when its bytes are on the disk."""
        *folders, last = name.split("/")
        with self._folder(*folders) as folder:
            aside = f".{last}.new"
            with os.fdopen(os.open(aside, _NEW, 0o666, dir_fd=folder), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.rename(aside, last, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Write a small file at once."""
        if not new:
            with self.create(name) as file:
                file.write(data)
            return True
        *folders, last = name.split("/")
        aside = f".{last}.{os.getpid()}-{os.urandom(4).hex()}"
        with self.create("/".join((*folders, aside))) as file:
            file.write(data)
        with self._folder(*folders) as folder:
            try:
                os.link(aside, last, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                return False
            finally:
                os.unlink(aside, dir_fd=folder)
            os.fsync(folder)
        return True

    def get(self, name: str) -> bytes | None:
        """Return a file's content."""
        try:
            with self._opened(name) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def part(self, name: str, start: int, end: int) -> bytes:
        """Return some of a file's bytes."""
        with written(self.shown), self._opened(name) as file:
            file.seek(start)
            return file.read(end - start)

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        *folders, last = name.split("/")
        missing = False
        with self._folder(*folders) as folder:
            try:
                handle = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                missing = True
            else:
                with os.fdopen(handle, "rb") as file:
                    yield file
        if missing:
            raise FileNotFoundError(name)

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's files."""
        with self._folder(*_parts(folder)) as handle:
            return sorted(os.listdir(handle))

    def move(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Move files."""
        for source, target in pairs:
            *of, old = source.split("/")
            *to, new = target.split("/")
            with self._folder(*of) as left, self._folder(*to) as entered:
                with suppress(FileNotFoundError):
                    os.rename(old, new, src_dir_fd=left, dst_dir_fd=entered)
                os.stat(new, dir_fd=entered)
                os.fsync(entered)

    def rename(self, folder: str, to: str) -> None:
        """Rename a folder at once."""
        *of, old = folder.split("/")
        *into, new = to.split("/")
        with self._folder(*of) as left, self._folder(*into) as entered:
            with suppress(FileNotFoundError):
                os.rename(old, new, src_dir_fd=left, dst_dir_fd=entered)
            os.stat(new, dir_fd=entered)
            os.fsync(entered)

    def remove(self, folder: str) -> None:
        """Remove a folder and what is in it."""
        *above, last = _parts(folder)
        with self._folder(*above) as parent, suppress(FileNotFoundError):
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
        *folders, last = name.split("/")
        with self._folder(*folders) as folder, suppress(FileNotFoundError):
            os.unlink(last, dir_fd=folder)


class ObjectPlace:
    """A prefix in a bucket. There is no renaming: folders are copied; readers have a pointer."""

    def __init__(self, shown: str, backend: Any, path: str) -> None:
        self.shown = shown
        self.backend = backend
        self.path = path.rstrip("/")

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write an object, in parts where it is large; it is not there before its last part."""
        with written(self.shown):
            file = self.backend.open(self._at(name), "wb")
            try:
                yield file
            except BaseException:
                with suppress(Exception):
                    file.discard()
                file.closed = True
                raise
            file.close()

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Write a small object at once."""
        with written(self.shown):
            if not new:
                self.backend.pipe_file(self._at(name), data)
                return True
            try:
                if self.shown.startswith("az:"):
                    self.backend.pipe_file(self._at(name), data, overwrite=False)
                else:
                    self.backend.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # s3fs has no word of its own for a condition that does not hold.
                if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                    return False
                raise
        return True

    def get(self, name: str) -> bytes | None:
        """Return an object's content."""
        with written(self.shown):
            try:
                return bytes(self.backend.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

    def part(self, name: str, start: int, end: int) -> bytes:
        """Return some of an object's bytes."""
        with written(self.shown):
            return bytes(self.backend.cat_file(self._at(name), start=start, end=end))

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects under a prefix."""
        with written(self.shown):
            try:
                found = self.backend.ls(self._at(folder), detail=True)
            except FileNotFoundError:
                return []
            return sorted(
                str(entry["name"]).rpartition("/")[2] for entry in found if entry["type"] == "file"
            )

    def move(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Copy objects within the store, several at once. They are deleted with their folder."""
        there = {
            folder: set(self.names(folder))
            for folder in {source.rpartition("/")[0] for source, _ in pairs}
        }
        copied = []
        with written(self.shown):
            for source, target in pairs:
                folder, _, name = source.rpartition("/")
                if name in there[folder]:
                    copied.append((self._at(source), self._at(target)))
                else:
                    self.backend.info(self._at(target))
            if copied:
                sources, targets = (list(side) for side in zip(*copied, strict=True))
                self.backend.copy(sources, targets)

    def rename(self, folder: str, to: str) -> None:
        """Copy a folder's objects; those that say it is whole come last."""
        names = self.names(folder)
        for some in ([n for n in names if n[0] != "_"], [n for n in names if n[0] == "_"]):
            self.move([(f"{folder}/{name}", f"{to}/{name}") for name in some])

    def remove(self, folder: str) -> None:
        """Delete all objects under a prefix."""
        with written(self.shown), suppress(FileNotFoundError):
            self.backend.rm(self._at(folder), recursive=True)

    def delete(self, name: str) -> None:
        """Delete an object."""
        with written(self.shown), suppress(FileNotFoundError):
            self.backend.rm_file(self._at(name))


def _parts(folder: str) -> list[str]:
    return [part for part in folder.split("/") if part]
