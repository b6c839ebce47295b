"""A read-only fsspec filesystem that cannot leave its folder, neither by a link nor by a name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem

from fourways_runtime.beneath import check_regular, open_beneath
from fourways_runtime.errors import FetchRefused


class BeneathFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files beneath ``root``. Paths are relative to it; links in it are rejected, not followed."""

    protocol = "beneath"
    cachable = False

    def __init__(self, root: Path, shown: str, closed: tuple[tuple[str, ...], ...] = ()) -> None:
        """Read beneath ``root``, which messages call ``shown``.

        ``closed`` are folders, as components beneath the root, that are neither opened nor listed.
        """
        super().__init__()
        self._root = root
        self._shown = shown
        self._closed = closed

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("beneath://").strip("/")

    def _open_handle(self, path: str) -> int:
        components = tuple(part for part in path.split("/") if part not in ("", "."))
        shown = f"{self._shown}/{'/'.join(components)}"
        if ".." in components:
            raise FetchRefused(f"{shown}: the path leaves its folder with ..")
        if self._is_closed(components):
            raise FetchRefused(f"{shown}: the folders of Secrets and of the store are no source")
        return open_beneath(self._root, components, shown)

    def _is_closed(self, components: tuple[str, ...]) -> bool:
        return any(components[: len(closed)] == closed for closed in self._closed)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return name, size (bytes), type and mtime (seconds since the epoch) of a path."""
        handle = self._open_handle(path)
        try:
            return _entry(self._strip_protocol(path), os.fstat(handle))
        finally:
            os.close(handle)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """Return the entries of a folder; links and special files are left out."""
        name = self._strip_protocol(path)
        handle = self._open_handle(path)
        try:
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                entries = [_entry(name, os.fstat(handle))]
            else:
                entries = [
                    _entry(f"{name}/{child}" if name else child, status)
                    for child in sorted(os.listdir(handle))
                    if not self._is_closed((*_parts(name), child))
                    and _is_plain(status := os.lstat(child, dir_fd=handle))
                ]
        finally:
            os.close(handle)
        return entries if detail else [entry["name"] for entry in entries]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> BinaryIO:
        if mode != "rb":
            raise FetchRefused(f"{path}: is read only")
        handle = self._open_handle(path)
        try:
            check_regular(handle, f"{self._shown}/{path}", single_link=False)
        except BaseException:
            os.close(handle)
            raise
        return os.fdopen(handle, "rb")


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)


def _entry(name: str, status: os.stat_result) -> dict[str, Any]:
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    size = 0 if kind == "directory" else status.st_size
    return {"name": name, "size": size, "type": kind, "mtime": status.st_mtime}
