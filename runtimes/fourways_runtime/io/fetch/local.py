"""Files on this host: opened relative to a folder's descriptor, without following any link.

Other pods may mount the same claim, so a name that was checked and is then opened again may be
another file by then. Each component is opened from its parent's descriptor, so that the file that
was checked is the file that is read. Links are rejected, not resolved: the message asks for the
real path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fourways_api.runtime_config import MODEL_IMAGE_SCHEME, Paths
from fourways_runtime.beneath import open_beneath, open_model_file, os_failure
from fourways_runtime.errors import FetchRefused

from .location import LOCAL_SCHEMES, Location
from .source import Body, Deadline

CHUNK = 1 << 20
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def closed_folders(paths: Paths) -> tuple[tuple[str, ...], ...]:
    """Return the folders, as components beneath /, that no URI may name: mounts of Secrets."""
    return tuple(
        folder.parts[1:]
        for folder in (Path(paths.secrets_root), Path(paths.store_uri_file).parent)
        if len(folder.parts) > 1
    )


def locate(location: Location, paths: Paths) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that a local URI must not leave, and the components beneath it.

    Raises FetchRefused for a path with ``..`` or an invalid claim name.
    """
    components = tuple(part for part in location.path.split("/") if part not in ("", "."))
    if ".." in components:
        raise FetchRefused(f"{location.shown}: the path leaves its folder with ..")
    if location.scheme == "pvc":
        if not _CLAIM.fullmatch(location.authority):
            raise FetchRefused(f"{location.shown}: write pvc://CLAIM/PATH")
        return Path(paths.volumes_root) / location.authority, components
    if location.scheme == MODEL_IMAGE_SCHEME:
        return Path(paths.model_image_dir), components
    for closed in closed_folders(paths):
        if components[: len(closed)] == closed:
            raise FetchRefused(
                f"{location.shown}: the folders of Secrets and of the store's address are no source"
            )
    if location.authority not in ("", "localhost"):
        raise FetchRefused(f"{location.shown}: write file:///PATH; other hosts are not supported")
    return Path("/"), components


def resolve(uri: str, paths: Paths) -> Path | None:
    """Return the path of a file or pvc URI; None for a remote one.

    The path exists and none of its components is a link, at the time of the call: to read it later
    from a folder that others can write to, open it through :func:`filesystem` instead. Raises
    FetchRefused or SourceError.
    """
    location = Location.parse(uri)
    if location.scheme not in LOCAL_SCHEMES:
        return None
    root, components = locate(location, paths)
    os.close(open_beneath(root, components, location.shown))
    return root.joinpath(*components)


class LocalSource:
    """A file on this host or on a mounted claim."""

    def __init__(self, location: Location, paths: Paths) -> None:
        self._root, self._components = locate(location, paths)
        self._shown = location.shown
        # A claim is shared with others. A file URI is read on the user's own machine only.
        self._own = location.scheme == "file"

    @contextmanager
    def open(self, offset: int, validator: str | None, deadline: Deadline) -> Iterator[Body]:
        """Open the file from its start: copying it again is cheaper than verifying half a copy."""
        handle = open_model_file(self._root, self._components, self._shown, own=self._own)
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
