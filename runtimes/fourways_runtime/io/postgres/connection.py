"""Shared by all PostgreSQL code: the connection string and the translation of errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from fourways_api import FetchPolicy
from fourways_runtime.errors import ConfigError, StoreFull, StoreReadOnly, StoreUnavailable

from ..fetch.location import check_host

_LOGIN_REFUSED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|no password supplied|role .* does not exist"
    r"|is not permitted to log in"
)

_BEFORE_VALUE = re.compile(r"[^\"':]*")
_KINDS: tuple[tuple[type[psycopg.Error], type[StoreUnavailable]], ...] = (
    (psycopg.errors.DiskFull, StoreFull),
    (psycopg.errors.InsufficientPrivilege, StoreReadOnly),
    (psycopg.errors.ReadOnlySqlTransaction, StoreReadOnly),
)


def conninfo(uri: str, timeout: float, what: str = "the prediction store") -> str:
    """Return a connection string that detects a dead peer; settings in the URI take precedence.

    ``timeout`` (s) applies to connecting and to the peer's responses on an open connection.

    Raises:
        ConfigError: the URI is malformed. Its text is not shown, because it may contain a password.

    """
    try:
        given = conninfo_to_dict(uri)
        seconds = max(1, round(timeout))
        defaults: dict[str, str | int] = {
            "connect_timeout": seconds,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": max(seconds * 1000, 1000),
            "application_name": "fourways",
        }
        return make_conninfo(uri, **{k: v for k, v in defaults.items() if k not in given})
    except psycopg.ProgrammingError:
        raise ConfigError(f"the URI of {what} is not a PostgreSQL URI") from None


def check_hosts(uri: str, policy: FetchPolicy, what: str) -> None:
    """Check that a policy allows every host of a connection string; sockets are on this host.

    Raises:
        FetchRefused: it does not allow one of them.

    """
    try:
        given = conninfo_to_dict(uri)
    except psycopg.ProgrammingError:
        raise ConfigError(f"the URI of {what} is not a PostgreSQL URI") from None
    for part in ("host", "hostaddr"):
        for host in str(given.get(part) or "").split(","):
            if host and not host.startswith(("/", "@")):
                check_host(host, policy)


def explain(error: Exception, uri: str) -> str:
    """Format a database error as one line, without the password of ``uri`` and without data."""
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    if isinstance(error, psycopg.DataError):
        # It quotes the value, which may be personal data; the server's log has it.
        text = _BEFORE_VALUE.match(text)[0].strip() or type(error).__name__  # type: ignore[index]
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    return text[:300]


def is_unavailable(error: psycopg.Error) -> bool:
    """Tell whether an error is external (connection, rights, disk, failover) and not a bug."""
    # Every error of a server has a code. One without is libpq's own: the server went away while a
    # statement was sent. psycopg has no class for it.
    without_code = type(error) is psycopg.DatabaseError and error.sqlstate is None
    return without_code or isinstance(
        error,
        psycopg.OperationalError
        | psycopg.InterfaceError
        | psycopg.errors.InsufficientPrivilege
        | psycopg.errors.ReadOnlySqlTransaction
        | psycopg.errors.InvalidSchemaName
        | psycopg.errors.IdleInTransactionSessionTimeout,
    )


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Translate external errors into StoreUnavailable; others pass through."""
    try:
        yield
    except psycopg.Error as error:
        if not is_unavailable(error):
            raise
        if is_login_refused(error):
            raise _login_refused(error, uri) from None
        kind = next(
            (ours for theirs, ours in _KINDS if isinstance(error, theirs)), StoreUnavailable
        )
        raise kind(f"the prediction store: {explain(error, uri)}") from None


def is_login_refused(error: psycopg.Error) -> bool:
    """Tell whether the server rejected the user or the password.

    libpq has no error code for failures while connecting, so the text is matched.
    """
    if isinstance(error, psycopg.errors.InvalidAuthorizationSpecification):
        return True
    return error.sqlstate is None and _LOGIN_REFUSED.search(str(error)) is not None


def _login_refused(error: psycopg.Error, uri: str) -> StoreUnavailable:
    refused = StoreUnavailable(
        "the prediction store refuses the login in its Secret (fourways-store unless the chart's "
        f"values say otherwise): {explain(error, uri)}"
    )
    refused.login_refused = True
    return refused


def lock_number(*parts: str) -> int:
    """Return the advisory lock number (signed, 64 bits) for a name."""
    digest = hashlib.sha256("\0".join(("fourways", *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _secrets(uri: str) -> set[str]:
    """Return all possible spellings of the password in the URI."""
    try:
        raw = urlsplit(uri).password or ""
        given = str(conninfo_to_dict(uri).get("password") or "")
    except (ValueError, psycopg.ProgrammingError):
        return {uri}
    return {text for text in (raw, unquote(raw), given, quote(given, safe="")) if text}
