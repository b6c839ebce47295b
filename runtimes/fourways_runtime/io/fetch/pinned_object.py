"""Objects of Google Cloud Storage and Azure, read in ranges only while they have a known tag.

gcsfs and adlfs open files without such a condition. The ranges are requested here: by generation in
``gs``, where an object that was replaced no longer has the old one (404), and with If-Match in
``az`` (412).
"""

from __future__ import annotations

from typing import Any

from fsspec.asyn import sync
from fsspec.spec import AbstractBufferedFile

_File: Any = AbstractBufferedFile  # Not typed.


class PinnedObject(_File):  # type: ignore[misc]
    """A file of one state of an object."""

    def __init__(self, filesystem: Any, scheme: str, path: str, size: int, tag: str) -> None:
        """``tag``: generation (``gs``) or ETag without quotes (``az``); ``size`` in bytes."""
        super().__init__(filesystem, path, "rb", size=size)
        self._fetch = {"gs": _gs_range, "az": _az_range}[scheme]
        self._tag = tag

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._fetch(self.fs, self.path, start, end, self._tag) if end > start else b""


def _gs_range(filesystem: Any, path: str, start: int, end: int, tag: str) -> bytes:
    found: bytes = filesystem.cat_file(path, start=start, end=end, generation=tag)
    return found


def _az_range(filesystem: Any, path: str, start: int, end: int, tag: str) -> bytes:
    found: bytes = sync(filesystem.loop, _az_download, filesystem, path, start, end, tag)
    return found


async def _az_download(filesystem: Any, path: str, start: int, end: int, tag: str) -> bytes:
    from azure.core import MatchConditions

    container, blob, _ = filesystem.split_path(path)
    async with filesystem.service_client.get_blob_client(container, blob) as client:
        stream = await client.download_blob(
            offset=start,
            length=end - start,
            etag=f'"{tag}"',
            match_condition=MatchConditions.IfNotModified,
        )
        found: bytes = await stream.readall()
        return found
