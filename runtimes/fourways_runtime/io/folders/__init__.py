"""Output folders and buckets, which are opened without following links.

The only module that writes files for others: sinks and bundle builds open their folders here.
Policy and credentials come from the fetcher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fourways_api import FetchPolicy, Paths
from fourways_runtime.errors import FetchRefused

from ..fetch.credentials import SecretWatch
from ..fetch.filesystems import filesystem
from ..fetch.local import locate
from ..fetch.location import Location, check_scheme
from .bucket_folder import BucketFolder
from .folder import PUBLISH_ERRORS, SINK_ERRORS, FolderErrors, OutputFolder
from .local_folder import LocalFolder

__all__ = [
    "PUBLISH_ERRORS",
    "SINK_ERRORS",
    "BucketFolder",
    "FolderErrors",
    "LocalFolder",
    "OutputFolder",
    "open_folder",
]


def open_folder(
    uri: str,
    *,
    secret: Path | None,
    policy: FetchPolicy,
    paths: Paths,
    errors: FolderErrors = SINK_ERRORS,
    public: bool = False,
) -> OutputFolder:
    """Return the folder that a URI names.

    ``public``: other users on this host can read the files, whatever the umask.

    Raises:
        ConfigError: a library or a credential is missing.
        FetchRefused: the policy forbids the location, or it is of a kind that cannot be written to.

    """
    location = Location.parse(uri.rstrip("/"))
    check_scheme(location, policy)
    if location.scheme not in ("file", "pvc", "s3", "gs", "az"):
        text = "write to a folder (file, pvc) or a bucket (s3, gs, az)"
        raise FetchRefused(f"{location.shown}: nothing can be written there; {text}")
    watch = SecretWatch(secret)

    def opened() -> tuple[Any, str]:
        return filesystem(location.uri, credentials=secret, policy=policy, paths=paths)

    backend, path = opened()
    if location.scheme in ("file", "pvc"):
        root, components = locate(location, paths)
        return LocalFolder(location.shown, backend, path, root, components, errors, public=public)
    return BucketFolder(
        location.shown,
        backend,
        path,
        errors,
        lambda: opened()[0] if watch.rotated() else None,
        secret.name if secret else "",
    )
