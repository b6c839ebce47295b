"""The address of a database, read from the mounted Secret that holds it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode

from fourways_runtime.errors import ConfigError

from .mounted_secret import MountedSecret

URI_KEY = "uri"
"""Key of the Secret."""

AUTHORITY_KEY = "ca.crt"
"""Key of the certificate of an authority, as cert-manager names it."""

REDIS = ("redis://", "rediss://")
FEAST = ("feast://", "feasts://")
TOKEN_KEY = "token"  # noqa: S105  (the name of a key)
"""Key of a bearer token, for a feature server that wants one."""

POSTGRESQL = ("postgresql://", "postgres://")
_SQLITE = "sqlite:///"


def read_secret_uri(file: Path, what: str, where: str = "") -> str:
    """Read an address; ``what`` names the database in errors, which never show the address.

    ``where`` describes the file's origin, unless it is a key of a Secret with its folder's name.

    Raises:
        ConfigError: the file is missing, empty or not text.

    """
    where = where or f"Secret {file.parent.name}, key {file.name}"
    try:
        uri = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"the URI of {what} cannot be read from {where}: {why}") from None
    if not uri:
        raise ConfigError(f"the URI of {what} is empty: {where}")
    return _verified(uri, file.with_name(AUTHORITY_KEY))


def _verified(uri: str, authority: Path) -> str:
    """Return the address with the authority beside it, if there is one, by which the server's
    certificate and name are verified unless the address says otherwise.
    """
    if not uri.startswith(POSTGRESQL) or not authority.exists():
        return uri
    given = {name for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    wanted = {"sslmode": "verify-full", "sslrootcert": str(authority)}
    added = urlencode({name: value for name, value in wanted.items() if name not in given})
    return f"{uri}{'&' if '?' in uri else '?'}{added}" if added else uri


def read_database_uri(secret: MountedSecret, what: str) -> str:
    """Read the address of a database that a manifest names a Secret for.

    The host is the one in the Secret's own address, so only the deployment must be listed.

    Raises:
        ConfigError: the Secret or its key is missing, empty or not text.
        SecretRefused: the Secret does not list the deployment.

    """
    file = secret.folder / URI_KEY
    if file.exists():
        secret.for_deployment()
    return read_secret_uri(file, what)


def sqlite_path(uri: str, what: str) -> Path | None:
    """Return the file that a ``sqlite:///PATH`` URI names; None for a PostgreSQL URI.

    Raises:
        ConfigError: the URI is neither.

    """
    if uri.startswith(_SQLITE):
        return Path("/" + unquote(uri.removeprefix(_SQLITE)).lstrip("/"))
    if uri.startswith(POSTGRESQL):
        return None
    raise ConfigError(f"the URI of {what} is neither postgresql://… nor sqlite:///PATH")
