"""Edge deployments: serves bundles to devices, read-only, from where they are published.

Owns the set of paths (an OCI layout, and nothing else in the folder), ranges and caching. Files are
opened by the fetcher, which follows no link out of its folder. Reading happens on dedicated
threads, so that a slow volume or object store blocks nothing else. To the gateway a bundle is only
data; the device verifies its signature.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from fourways_api import GatewayConfig, Route
from fourways_http import HttpError, Request, Response, SizedResponse, json_response
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import MalformedBundle
from fourways_runtime.errors import FetchRefused, SourceError, WorkloadError

from .mode import NAME, RETRY

logger = logging.getLogger("fourways.gateway.bundles")

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024
MAX_INDEX_BYTES = 1 << 20
MAX_TARGETS = 64
_THREADS = 8
_HEX = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(rb"bytes=([0-9]{0,18})-([0-9]{0,18})")
_OCTETS = b"application/octet-stream"
_INDEX = b"application/vnd.oci.image.index.v1+json"
_FILES = {"index.json": _INDEX, "oci-layout": b"application/json"}
_FOREVER = b"cache-control: public, max-age=31536000, immutable"
_EACH_TIME = b"cache-control: no-cache"


class Bundles:
    """The bundles of edge deployments, on the running event loop."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bundles")
        self._filesystems: dict[str, tuple[Any, str]] = {}

    def close(self) -> None:
        """Shut down the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def listing(self, route: Route) -> Response:
        """List the targets that have a bundle."""
        name = route.deployment
        targets = await self._run(route, lambda: self._targets(route))
        listed = [
            {"target": target, "links": {"index": f"/bundles/{name}/{target}/index.json"}}
            for target in targets
        ]
        return json_response({"deployment": name, "version": route.version, "targets": listed})

    async def file(self, route: Route, target: str, file: str, request: Request) -> Response:
        """Return ``index.json`` or ``oci-layout``, without support for ranges."""
        kind = _FILES.get(file)
        if kind is None or not NAME.fullmatch(target):
            raise _no_such()
        content = await self._run(route, lambda: self._small(route, f"{target}/{file}"))
        tag = b'"%b"' % hashlib.sha256(content).hexdigest().encode()
        headers = (b"etag: " + tag, _EACH_TIME)
        if _matches(request.header(b"if-none-match"), tag):
            return SizedResponse(len(content), None, 304, kind, headers)
        return Response(content, 200, kind, headers)

    async def blob(self, route: Route, target: str, digest: str, request: Request) -> Response:
        """Return a blob or one range of it. The content behind a digest never changes."""
        if not _HEX.fullmatch(digest) or not NAME.fullmatch(target):
            raise _no_such()
        tag = b'"sha256:%b"' % digest.encode()
        path = f"{target}/blobs/sha256/{digest}"
        blob = await self._run(route, lambda: self._open(route, path))
        headers = (b"etag: " + tag, _FOREVER, b"accept-ranges: bytes")
        if _matches(request.header(b"if-none-match"), tag):
            blob.close()
            return SizedResponse(blob.size, None, 304, _OCTETS, headers)
        wanted = _range(request, tag, blob.size)
        if wanted is None:
            return SizedResponse(blob.size, blob, 200, _OCTETS, headers)
        start, end = wanted
        if start >= end:
            blob.close()
            unsatisfied = b"content-range: bytes */%d" % blob.size
            raise HttpError(416, "the blob has no such range", (unsatisfied, *headers))
        blob.seek(start)
        part = b"content-range: bytes %d-%d/%d" % (start, end - 1, blob.size)
        return SizedResponse(end - start, blob.until(end), 206, _OCTETS, (*headers, part))

    async def profile(self, route: Route, target: str) -> tuple[str, bytes] | None:
        """Return the training profile of the published bundle, with its digest; None without one.

        Raises HttpError 404 if nothing is published for the target, 503.
        """
        if not NAME.fullmatch(target):
            raise _no_such()
        return await self._run(route, lambda: self._profile(route, target))

    # ---- on a thread

    def _profile(self, route: Route, target: str) -> tuple[str, bytes] | None:
        def blob(digest: str) -> bytes:
            content = self._small(route, f"{target}/{layout.blob_name(digest)}")
            if layout.digest_of(content) != digest:
                raise SourceError(f"blob {digest}: its content does not have this digest")
            return content

        try:
            index = layout.read_index(self._small(route, f"{target}/{layout.INDEX_FILE}"))
            files = layout.read_model_manifest(blob(index.model.digest))
        except MalformedBundle as fault:
            raise SourceError(str(fault)) from None
        file = files.get(layout.PROFILE_FILE)
        return None if file is None else (file.digest, blob(file.digest))

    def _root(self, route: Route) -> tuple[Any, str]:
        """Return the filesystem and the deployment's folder in it."""
        known = self._filesystems.get(route.deployment)
        if known is None:
            # Only needed where bundles are served.
            from fourways_runtime.io.fetch.filesystems import filesystem

            assert route.publish is not None, "edge routes have a folder"  # noqa: S101
            secret = route.publish_credentials
            paths = self._config.paths.of(route.deployment)
            credentials = Path(paths.secrets_root) / secret.secret_name if secret else None
            opened, path = filesystem(
                route.publish, credentials=credentials, policy=self._config.fetch, paths=paths
            )
            known = opened, f"{path.rstrip('/')}/{route.deployment}".lstrip("/")
            self._filesystems[route.deployment] = known
        return known

    def _targets(self, route: Route) -> list[str]:
        files, root = self._root(route)
        names = sorted(
            entry["name"].rstrip("/").rpartition("/")[2]
            for entry in files.ls(root, detail=True)
            if entry["type"] == "directory"
        )
        named = [name for name in names if NAME.fullmatch(name)][:MAX_TARGETS]
        return [name for name in named if _is_file(files, f"{root}/{name}/index.json")]

    def _small(self, route: Route, path: str) -> bytes:
        files, root = self._root(route)
        with files.open(f"{root}/{path}", "rb") as file:
            content: bytes = file.read(MAX_INDEX_BYTES + 1)
        if len(content) > MAX_INDEX_BYTES:
            raise SourceError(f"{path} is larger than {MAX_INDEX_BYTES} bytes")
        return content

    def _open(self, route: Route, path: str) -> _Blob:
        files, root = self._root(route)
        file = files.open(f"{root}/{path}", "rb")
        try:
            size = getattr(file, "size", None)
            size = os.fstat(file.fileno()).st_size if size is None else int(size)
            return _Blob(file, size, self._loop, self._threads)
        except BaseException:
            file.close()
            raise

    async def _run(self, route: Route, work: Callable[[], T]) -> T:
        """Run work on a thread. Raises HttpError 404 for a missing file, otherwise 503."""
        try:
            return await self._loop.run_in_executor(self._threads, work)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise _no_such() from None
        except WorkloadError as error:
            # Once the folder is open, a refusal means a link or a device in it.
            refused = isinstance(error, FetchRefused) and route.deployment in self._filesystems
            if refused or isinstance(error, SourceError):
                logger.info("no such bundle: %s", error)
                raise _no_such() from None
            self._away(route, error.reason, str(error))
        except Exception as error:  # noqa: BLE001  (each backend has a tree of its own)
            self._away(route, type(error).__name__, "reading failed")

    def _away(self, route: Route, reason: str, text: str) -> NoReturn:
        # The reason may contain an address, so it only goes to the log. A Secret or a volume may
        # have changed, so the next request opens the folder again.
        self._filesystems.pop(route.deployment, None)
        details = {"deployment": route.deployment, "reason": reason}
        logger.warning("bundles cannot be read: %s", text, extra=details)
        raise HttpError(503, "the bundles cannot be read now", RETRY) from None


class _Blob:
    """A blob that is read on the threads."""

    def __init__(
        self,
        file: Any,
        size: int,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.size = size
        self._file = file
        self._start, self._end = 0, size
        self._loop = loop
        self._threads = threads
        self._reading: asyncio.Future[bytes] | None = None

    def seek(self, start: int) -> None:
        self._start = start

    def until(self, end: int) -> _Blob:
        self._end = end
        return self

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end."""
        self._reading = self._loop.run_in_executor(self._threads, self._read)
        return await self._reading

    def _read(self) -> bytes:
        if self._file.tell() != self._start:
            self._file.seek(self._start)
        data: bytes = self._file.read(min(CHUNK_BYTES, self._end - self._start))
        self._start += len(data)
        return data

    def close(self) -> None:
        """Close the file on a thread, because closing may wait for a server."""
        try:
            self._threads.submit(self._file.close)
        except RuntimeError:  # the gateway is shutting down
            self._file.close()


def _is_file(files: Any, path: str) -> bool:
    try:
        return bool(files.info(path)["type"] == "file")
    except (FileNotFoundError, WorkloadError):
        return False


def _no_such() -> HttpError:
    return HttpError(404, "no such bundle, or it is not published yet")


def _matches(condition: bytes | None, tag: bytes) -> bool:
    return condition is not None and (condition.strip() == b"*" or tag in condition)


def _range(request: Request, tag: bytes, size: int) -> tuple[int, int] | None:
    """Return the requested range as [start, end); None if the whole file is to be sent."""
    asked = request.header(b"range")
    if asked is None:
        return None
    condition = request.header(b"if-range")
    if condition is not None and condition.strip() != tag:
        return None
    found = _RANGE.fullmatch(asked.strip())
    if found is None or found[0] == b"bytes=-":
        return None  # several ranges, other units or malformed: a server may ignore them
    first, last = found[1], found[2]
    if not first:
        length = int(last)
        return (max(0, size - length), size) if length else (size, size)
    end = min(size, int(last) + 1) if last else size
    if last and int(last) < int(first):
        return None
    return int(first), end
