"""Maps a missing library to the optional extra of the package that installs it.

The package's own metadata says which extra lists which library, so a new extra needs no entry here,
unless the library is imported under a name that neither the extra nor its distribution has.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

from fourways_api.installing import NAME, install_command

_OTHER_NAMES = {
    "PIL": "images",
    "PyKCS11": "pkcs11",
    "azure": "az",
    "cryptography": "runtime",
    "google": "runtime",
    "grpc": "runtime",
    "jwt": "runtime",
    "model_signing": "edge",
    "opentelemetry": "tracing",
    "psycopg_pool": "runtime",
    "simdjson": "runtime",
}
"""The extra of each library whose module has another name, or that comes with another library."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*\bextra == ['\"]([^'\"]+)['\"]")


def missing_library(error: BaseException) -> str | None:
    """Return the message for a library that is not installed; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    library = error.name.partition(".")[0]
    extra = extra_of(library)
    if extra is None:
        return None
    return f"the library {library} is not installed: {install_command(extra)}"


def extra_of(library: str) -> str | None:
    """Return the extra that installs a library, by the name of its module; None if there is none.

    Of several extras, the one of the library's own name comes first, then ``runtime``, then the one
    that lists the fewest libraries.
    """
    if library in _OTHER_NAMES:
        return _OTHER_NAMES[library]
    extras = _distributions()
    listing = [name for name, listed in extras.items() if name == library or library in listed]
    return min(
        listing,
        key=lambda name: (name != library, name != "runtime", len(extras[name])),
        default=None,
    )


def _distributions() -> dict[str, set[str]]:
    """Return the distributions that each extra lists, by the names that their modules have."""
    try:
        requirements = requires(NAME) or ()
    except PackageNotFoundError:
        return {}
    extras: dict[str, set[str]] = {}
    for match in map(_REQUIREMENT.match, requirements):
        if match is not None:
            module = match[1].lower().replace("-", "_").replace(".", "_")
            extras.setdefault(match[2], set()).add(module)
    return extras
