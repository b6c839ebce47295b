"""The source for each scheme. Only its own libraries are loaded."""

from __future__ import annotations

from fourways_api.runtime_config import FetchPolicy, Paths

from .credentials import Credentials
from .local import LocalSource
from .location import LOCAL_SCHEMES, Location
from .source import ByteSource


def source_of(
    location: Location,
    paths: Paths,
    credentials: Credentials,
    policy: FetchPolicy,
    digest: str | None,
) -> ByteSource:
    """Return the source for a URI. Raises ConfigError and FetchRefused; opens nothing yet.

    ``digest`` is the expected digest, for a source that can compare it before the download.
    """
    match location.scheme:
        case scheme if scheme in LOCAL_SCHEMES:
            return LocalSource(location, paths)
        case "http" | "https":
            from .http import HttpSource

            return HttpSource(location, credentials, policy)
        case "oci":
            from .oci import OciSource

            return OciSource(location, credentials, policy, digest)
        case _:
            from .objects import ObjectSource, object_filesystem

            filesystem, path = object_filesystem(location, credentials, policy)
            return ObjectSource(location, filesystem, path)
