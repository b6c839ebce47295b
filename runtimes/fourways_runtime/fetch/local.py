"""Files on this host: opened beneath a folder's descriptor, and no link is ever followed.

A claim is shared with whoever else mounts it, so a name checked and then opened again may be
another file by then. Each component is opened from its parent's descriptor, and what is checked
is what is read. Links are refused, not resolved: the message asks for the real path.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fourways_api.runtime_config import Paths

from ..errors import FetchRefused, SourceError, WorkloadError
from .location import Location
from .source import Body, Deadline

CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def locate(location: Location, paths: Paths) -> tuple[Path, tuple[str, ...]]:
    """Return the folder a local URI may not leave, and the components beneath it.

    Raises FetchRefused for a path with ``..`` or a claim's name that is none.
    """
    components = tuple(part for part in location.path.split("/") if part not in ("", "."))
    if ".." in components:
        raise FetchRefused(f"{location.shown}: the path leaves its folder with ..")
    if location.scheme == "pvc":
        if not _CLAIM.fullmatch(location.authority):
            raise FetchRefused(f"{location.shown}: write pvc://CLAIM/PATH")
        return Path(paths.volumes_root) / location.authority, components
    if location.authority not in ("", "localhost"):
        raise FetchRefused(f"{location.shown}: write file:///PATH; other hosts are not read")
    return Path("/"), components


def open_beneath(root: Path, components: tuple[str, ...], shown: str) -> int:
    """Open a file or folder beneath ``root`` for reading; the caller closes the descriptor.

    ``root`` itself is trusted. Raises FetchRefused at a link and SourceError for what is missing
    or may not be read.
    """
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failure(error, shown, root.name) from None
    for position, component in enumerate(components):
        flags = _FILE if position == len(components) - 1 else _FOLDER
        try:
            child = os.open(component, flags, dir_fd=handle)
        except OSError as error:
            raise _explain(error, handle, component, shown) from None
        finally:
            os.close(handle)
        handle = child
    return handle


def _explain(error: OSError, folder: int, component: str, shown: str) -> WorkloadError:
    # A link opened as a folder is ENOTDIR, as a file ELOOP: ask what it is.
    try:
        is_link = stat.S_ISLNK(os.lstat(component, dir_fd=folder).st_mode)
    except OSError:
        is_link = False
    if is_link or error.errno == errno.ELOOP:
        return FetchRefused(f"{shown}: {component!r} is a link; write the real path")
    return _failure(error, shown, component)


def _failure(error: OSError, shown: str, name: str) -> SourceError:
    said = os.strerror(error.errno).lower() if error.errno else "unreadable"
    return SourceError(f"{shown}: {name!r}: {said}")


def check_regular(handle: int, shown: str, *, single_link: bool) -> os.stat_result:
    """Refuse whatever is no regular file; with ``single_link`` also a file of several names."""
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{shown}: is a folder; name the file")
    if not stat.S_ISREG(status.st_mode):
        raise FetchRefused(f"{shown}: is no regular file")
    if single_link and status.st_nlink != 1:
        raise FetchRefused(f"{shown}: the file has {status.st_nlink} hard links; copy it instead")
    return status


def open_model_file(root: Path, components: tuple[str, ...], shown: str) -> int:
    """Open a regular file with a single name beneath ``root``; the caller closes it."""
    handle = open_beneath(root, components, shown)
    try:
        check_regular(handle, shown, single_link=True)
    except BaseException:
        os.close(handle)
        raise
    return handle


def resolve(uri: str, paths: Paths) -> Path | None:
    """Return the path behind a file or pvc URI; None for a remote one.

    It exists and no component of it is a link. That held at the time of asking: whoever reads
    it later from a folder others write to opens it through :func:`filesystem` instead.
    Raises FetchRefused or SourceError.
    """
    location = Location.parse(uri)
    if location.scheme not in ("file", "pvc"):
        return None
    root, components = locate(location, paths)
    os.close(open_beneath(root, components, location.shown))
    return root.joinpath(*components)


class LocalSource:
    """A file on this host or on a mounted claim."""

    def __init__(self, location: Location, paths: Paths) -> None:
        self._root, self._components = locate(location, paths)
        self._shown = location.shown

    @contextmanager
    def open(self, offset: int, validator: str | None, deadline: Deadline) -> Iterator[Body]:
        """Open the file from its start: copying again is cheaper than trusting a copy's half."""
        handle = open_model_file(self._root, self._components, self._shown)
        with os.fdopen(handle, "rb", buffering=0) as file:
            size = os.fstat(handle).st_size
            yield Body(0, size, None, _read(file.read, deadline, self._shown))


def _read(read: Callable[[int], bytes | None], deadline: Deadline, shown: str) -> Iterator[bytes]:
    while True:
        deadline.remaining()
        try:
            chunk = read(CHUNK)
        except OSError as error:
            raise _failure(error, shown, "read") from None
        if not chunk:
            return
        yield chunk
