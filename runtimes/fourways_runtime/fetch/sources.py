"""Which source reads which scheme."""

from __future__ import annotations

from fourways_api.runtime_config import FetchPolicy, Paths

from ..errors import FetchRefused
from .credentials import Credentials
from .http import HttpSource
from .local import LocalSource
from .location import Location
from .objects import ObjectSource, object_filesystem
from .source import Source


def source_of(
    location: Location, paths: Paths, credentials: Credentials, policy: FetchPolicy
) -> Source:
    """Return the source for a URI. Raises ConfigError and FetchRefused; opens nothing yet."""
    match location.scheme:
        case "file" | "pvc":
            return LocalSource(location, paths)
        case "http" | "https":
            return HttpSource(location, credentials, policy)
        case "oci":
            raise FetchRefused(
                f"{location.shown}: oci is not read yet; put the model behind https, s3, gs or az,"
                " or on a volume"
            )
        case _:
            filesystem, path = object_filesystem(location, credentials, policy)
            return ObjectSource(location, filesystem, path)
