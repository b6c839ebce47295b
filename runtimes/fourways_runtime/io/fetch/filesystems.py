"""Reading tables in place: an fsspec filesystem for a URI, under the fetcher's policy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.errors import FetchRefused

from .beneath_fs import BeneathFileSystem
from .credentials import Credentials
from .local import closed_folders, locate
from .location import Location, check_scheme
from .retry import Sleep
from .source import Clock


def filesystem(
    uri: str,
    *,
    credentials: Path | None,
    policy: FetchPolicy,
    paths: Paths,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> tuple[Any, str]:
    """Return an ``fsspec.AbstractFileSystem`` for a table's URI, and the table's path in it.

    For pyarrow: ``pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))``. Local
    filesystems never follow a link and never leave their claim; an http(s) one contains the single
    file of its URI and needs a server that supports range requests. Every request has the policy's
    ``timeout_seconds``.

    Raises FetchRefused, ConfigError, SourceError and FetchFailed as :func:`fetch` does; s3, gs and
    az filesystems raise the errors of their backend while they are read: wrap the reading in
    :func:`fourways_runtime.io.fetch.objects.translated`.
    """
    location = Location.parse(uri)
    check_scheme(location, policy)
    match location.scheme:
        case "file" | "pvc":
            root, components = locate(location, paths)
            shown = f"{location.scheme}://{location.authority}"
            closed = closed_folders(paths) if location.scheme == "file" else ()
            return BeneathFileSystem(root, shown, closed), "/".join(components)
        case "http" | "https":
            from .http_fs import HttpFile, HttpFileSystem

            file = HttpFile(location, Credentials.read(credentials, paths), policy, clock, sleep)
            return HttpFileSystem(file), file.name
        case "oci":
            raise FetchRefused(f"{location.shown}: a table cannot be read from a registry")
        case _:
            from .objects import object_filesystem

            return object_filesystem(location, Credentials.read(credentials, paths), policy)
