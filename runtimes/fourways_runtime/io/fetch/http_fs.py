"""One file over HTTP(S) as an fsspec filesystem, read by ranges through the guarded client."""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from fourways_api.runtime_config import FetchPolicy
from fourways_runtime.errors import FetchRefused, SourceError

from .credentials import Credentials
from .http import authorization, check_status, content_range, get, strong_tag
from .location import Location
from .retry import Sleep, retried
from .source import Clock, Deadline, Interrupted

_BLOCK = 4 << 20


class HttpFile:
    """A file at a URL, read in ranges. It must not change during the reading."""

    def __init__(
        self,
        location: Location,
        credentials: Credentials,
        policy: FetchPolicy,
        clock: Clock,
        sleep: Sleep,
    ) -> None:
        self._location = location
        self._headers = authorization(credentials, location.uri)
        self._secret = credentials.secret_name
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._version: tuple[int, str | None] | None = None
        self.name = location.path.rpartition("/")[2] or "file"

    def version(self) -> tuple[int, str | None]:
        """Return size (bytes) and tag. Raises SourceError if the server does not support ranges."""
        if self._version is None:
            self.read(0, 1)
        assert self._version is not None  # noqa: S101  (read sets it, or raises)
        return self._version

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` up to ``end``, or fewer at the end of the file."""
        deadline = Deadline(self._policy.timeout_seconds, self._clock)
        return retried(lambda: self._range(start, end, deadline), deadline, self._sleep)

    def _range(self, start: int, end: int, deadline: Deadline) -> bytes:
        headers = self._headers | {"Range": f"bytes={start}-{end - 1}"}
        shown = self._location.shown
        with get(self._location, headers, self._policy, deadline) as response:
            check_status(response, self._location, self._secret)
            found = content_range(response)
            if response.status != 206 or found is None or found[0] != start or found[1] is None:
                raise SourceError(
                    f"{shown}: the server does not support range requests; put the table on a "
                    "volume"
                    " or into an object store"
                )
            version = (found[1], strong_tag(response))
            if self._version not in (None, version):
                raise SourceError(f"{shown}: changed while it was read")
            self._version = version
            expected = min(end, version[0]) - start
            body = bytearray()
            for chunk in response.iter_stream():
                deadline.remaining()
                body += chunk
                if len(body) > expected:
                    raise FetchRefused(f"{shown}: the server sent more than the requested range")
        if len(body) != expected:
            raise Interrupted(f"{shown}: the response is shorter than the requested range")
        return bytes(body)


class HttpFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A filesystem that contains one file."""

    protocol = "http-file"
    cachable = False

    def __init__(self, file: HttpFile) -> None:
        super().__init__()
        self._file = file

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return name, size (bytes) and type."""
        if self._strip_protocol(path).strip("/") != self._file.name:
            raise FileNotFoundError(path)
        size, tag = self._file.version()
        return {"name": self._file.name, "size": size, "type": "file", "ETag": tag}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """Return the one file."""
        return [self.info(self._file.name)] if detail else [self._file.name]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            raise FetchRefused(f"{path}: is read only")
        self.info(path)
        return _Ranged(self, self._file)


class _Ranged(AbstractBufferedFile):  # type: ignore[misc]
    def __init__(self, filesystem: HttpFileSystem, file: HttpFile) -> None:
        self._file = file
        super().__init__(filesystem, file.name, block_size=_BLOCK, size=file.version()[0])

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._file.read(start, end)
