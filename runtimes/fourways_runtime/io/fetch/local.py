"""Files on this host: opened beneath a folder's descriptor, and no link is ever followed.

A claim is shared with whoever else mounts it, so a name checked and then opened again may be
another file by then. Each component is opened from its parent's descriptor, and what is checked
is what is read. Links are refused, not resolved: the message asks for the real path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fourways_api.runtime_config import Paths
from fourways_runtime.beneath import open_beneath, open_model_file, os_failure
from fourways_runtime.errors import FetchRefused

from .location import Location
from .source import Body, Deadline

CHUNK = 1 << 20
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
            raise os_failure(error, shown, "read") from None
        if not chunk:
            return
        yield chunk
