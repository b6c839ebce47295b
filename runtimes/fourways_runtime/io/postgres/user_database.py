"""A PostgreSQL database of the user's: its address from a Secret, its errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from fourways_api import Paths
from fourways_api.model import SecretReference
from fourways_runtime.errors import ConfigError, WorkloadError

from .connection import conninfo, explain, is_unavailable

URI_KEY = "uri"
"""Key of the Secret."""

CONNECT_SECONDS = 10.0


class UserDatabase:
    """The database a Secret names, told to people as ``what``."""

    def __init__(
        self,
        secret: SecretReference,
        paths: Paths,
        what: str,
        *,
        unavailable: type[WorkloadError],
        refused: type[WorkloadError],
        full: type[WorkloadError] | None = None,
    ) -> None:
        """Raise ``unavailable`` for errors of the world, and ``refused`` for those of the spec."""
        self._file = Path(paths.secrets_root) / secret.secret_name / URI_KEY
        self._what = what
        self._unavailable = unavailable
        self._refused = refused
        self._full = full or unavailable

    def connect(self) -> psycopg.Connection:
        """Connect; the address is read anew, for the Secret may have been rotated."""
        uri = self._uri()
        with self.translated():
            try:
                address = conninfo(uri, CONNECT_SECONDS)
            except ConfigError:
                raise ConfigError(f"the URI of {self._what} is not a PostgreSQL URI") from None
            return psycopg.connect(address, client_encoding="utf8")

    def _uri(self) -> str:
        try:
            uri = self._file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not text"
            raise ConfigError(
                f"the URI of {self._what}: Secret {self._file.parent.name}, key {URI_KEY}: {why}"
            ) from None
        if not uri.startswith(("postgresql://", "postgres://")):
            raise ConfigError(
                f"the URI of {self._what} in Secret {self._file.parent.name} is not postgresql://…"
            )
        return uri

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what psycopg raises into our errors, without the password."""
        try:
            yield
        except psycopg.Error as error:
            try:
                text = f"{self._what}: {explain(error, self._uri())}"
            except ConfigError:
                text = f"{self._what}: {type(error).__name__}"
            if isinstance(error, psycopg.errors.DiskFull):
                raise self._full(text) from None
            denied = isinstance(
                error, psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidSchemaName
            )
            if is_unavailable(error) and not denied:
                raise self._unavailable(text) from None
            raise self._refused(text) from None
