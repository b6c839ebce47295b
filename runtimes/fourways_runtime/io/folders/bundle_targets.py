"""Where bundles are published: a folder of this host or of a claim, or a bucket.

Owns writing, which the fetcher never does, under the fetcher's own policy and credentials. A file
is replaced whole or not at all: on disk by a synced file renamed into place, in a bucket by a put,
which stores replace objects atomically by. Folders shared with others are entered component by
component, and no link in them is followed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.errors import FetchFailed, FetchRefused, PublishFailed, SourceError

from ..fetch.credentials import Credentials
from ..fetch.local import locate
from ..fetch.location import Location, check_scheme
from ..fetch.objects import object_filesystem, translated

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEMPORARY = ".new-"


class Place(Protocol):
    """A folder to publish into. Names are relative, with ``/`` between components.

    Every method raises PublishFailed, or FetchRefused for what is not allowed.
    """

    def read(self, name: str, most: int) -> bytes | None:
        """Return a small file, None where there is none or it is longer than ``most`` bytes."""
        ...

    def size(self, name: str) -> int | None:
        """Return a file's size, None where there is none."""
        ...

    def put(self, name: str, file: Path) -> None:
        """Make ``name`` a copy of a file, whole or not at all."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's files."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...


def open_place(uri: str, *, credentials: Path | None, policy: FetchPolicy, paths: Paths) -> Place:
    """Return the place a URI names. Raises FetchRefused, ConfigError and Unavailable."""
    location = Location.parse(uri)
    check_scheme(location, policy)
    if location.scheme in ("file", "pvc"):
        root, components = locate(location, paths)
        return FolderPlace(root, components, location.shown)
    if location.scheme not in ("s3", "gs", "az"):
        raise FetchRefused(f"{location.shown}: bundles are not published there")
    filesystem, path = object_filesystem(location, Credentials.read(credentials), policy)
    return ObjectPlace(location, filesystem, path)


class FolderPlace:
    """A folder beneath ``root``, which exists; what is between them is made."""

    def __init__(self, root: Path, components: tuple[str, ...], shown: str) -> None:
        self._root = root
        self._components = components
        self._shown = shown

    @contextmanager
    def _folder(self, name: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Enter the folder of a file; yield its descriptor and the file's own name."""
        *between, last = name.split("/")
        try:
            handle = os.open(self._root, _FOLDER & ~os.O_NOFOLLOW)
            try:
                for component in (*self._components, *between):
                    if make:
                        with suppress(FileExistsError):
                            os.mkdir(component, dir_fd=handle)
                            # Whatever the umask: the gateway reads as somebody else.
                            os.chmod(component, 0o755, dir_fd=handle)  # noqa: S103
                    child = os.open(component, _FOLDER, dir_fd=handle)
                    os.close(handle)
                    handle = child
                yield handle, last
            finally:
                os.close(handle)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not make:
                raise
            said = os.strerror(error.errno).lower() if error.errno else "failed"
            raise PublishFailed(f"{self._shown}: {name}: cannot be written: {said}") from None

    def read(self, name: str, most: int) -> bytes | None:
        """Return a small file; see :class:`Place`."""
        try:
            with self._folder(name, make=False) as (folder, last):
                handle = os.open(last, _OLD, dir_fd=folder)
                with os.fdopen(handle, "rb") as file:
                    if not stat.S_ISREG(os.fstat(handle).st_mode):
                        return None
                    raw = file.read(most + 1)
                    return raw if len(raw) <= most else None
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Return a file's size; see :class:`Place`."""
        try:
            with self._folder(name, make=False) as (folder, last):
                found = os.stat(last, dir_fd=folder, follow_symlinks=False)
                return found.st_size if stat.S_ISREG(found.st_mode) else None
        except FileNotFoundError:
            return None

    def put(self, name: str, file: Path) -> None:
        """Copy a file into place; see :class:`Place`."""
        with self._folder(name, make=True) as (folder, last):
            temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
            try:
                handle = os.open(temporary, _NEW, 0o644, dir_fd=folder)
                with os.fdopen(handle, "wb") as to, file.open("rb") as source:
                    shutil.copyfileobj(source, to, 1 << 20)
                    to.flush()
                    os.fchmod(handle, 0o644)
                    os.fsync(handle)
                os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise

    def names(self, folder: str) -> list[str]:
        """Return a folder's files, half-written ones too; see :class:`Place`."""
        try:
            with self._folder(f"{folder}/.", make=False) as (handle, _):
                return sorted(os.listdir(handle))
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        """Delete a file; see :class:`Place`."""
        with suppress(FileNotFoundError), self._folder(name, make=False) as (folder, last):
            os.unlink(last, dir_fd=folder)


class ObjectPlace:
    """A prefix in a bucket."""

    def __init__(self, location: Location, filesystem: Any, path: str) -> None:
        self._location = location
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            with translated(self._location):
                yield
        except (SourceError, FetchFailed) as error:
            raise PublishFailed(str(error)) from None

    def _info(self, name: str) -> dict[str, Any] | None:
        with self._failing():
            try:
                found: dict[str, Any] = self._filesystem.info(f"{self._path}/{name}")
            except FileNotFoundError:
                return None
            return found if found.get("type") == "file" else None

    def read(self, name: str, most: int) -> bytes | None:
        """Return a small object; see :class:`Place`."""
        size = self.size(name)
        if size is None or size > most:
            return None
        with self._failing():
            return bytes(self._filesystem.cat_file(f"{self._path}/{name}"))

    def size(self, name: str) -> int | None:
        """Return an object's size; see :class:`Place`."""
        found = self._info(name)
        return None if found is None else int(found["size"])

    def put(self, name: str, file: Path) -> None:
        """Upload a file; see :class:`Place`."""
        with self._failing():
            self._filesystem.put_file(str(file), f"{self._path}/{name}")

    def names(self, folder: str) -> list[str]:
        """Return a prefix's objects; see :class:`Place`."""
        with self._failing():
            try:
                found = self._filesystem.ls(f"{self._path}/{folder}", detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in found)

    def delete(self, name: str) -> None:
        """Delete an object; see :class:`Place`."""
        with self._failing(), suppress(FileNotFoundError):
            self._filesystem.rm_file(f"{self._path}/{name}")
