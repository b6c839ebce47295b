"""A user's PostgreSQL database: its address from a Secret, its errors translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from fourways_api import FetchPolicy, Paths
from fourways_api.model import SecretReference
from fourways_runtime.errors import ConfigError, QueryRefused, WorkloadError

from ..mounted_secret import MountedSecret
from ..secret_uri import POSTGRESQL, read_database_uri
from .connection import check_hosts, conninfo, explain, is_login_refused, is_unavailable

CONNECT_SECONDS = 10.0


class UserDatabase:
    """The database that a Secret names; ``what`` describes it in messages."""

    def __init__(
        self,
        secret: SecretReference,
        paths: Paths,
        what: str,
        *,
        unavailable: type[WorkloadError],
        refused: type[WorkloadError],
        full: type[WorkloadError] | None = None,
        writes: bool = True,
        policy: FetchPolicy,
    ) -> None:
        """Raise ``unavailable`` for external errors, and ``refused`` for errors in the spec.

        Without ``writes``, sessions are read-only, and an attempt to write is an error in the spec.
        """
        self._writes = writes
        self._policy = policy
        self._secret = MountedSecret.of(secret, paths)
        self._what = what
        self._unavailable = unavailable
        self._refused = refused
        self._full = full or unavailable

    def connect(self) -> psycopg.Connection:
        """Connect; the address is read again, because the Secret may have been rotated."""
        uri = self._uri()
        check_hosts(uri, self._policy, self._what)
        with self.translated():
            address = conninfo(uri, CONNECT_SECONDS, self._what)
            connection = psycopg.connect(address, client_encoding="utf8")
        if not self._writes:
            connection.read_only = True
        return connection

    def _uri(self) -> str:
        uri = read_database_uri(self._secret, self._what)
        if not uri.startswith(POSTGRESQL):
            raise ConfigError(
                f"the URI of {self._what} in Secret {self._secret.name} is not postgresql://…"
            )
        return uri

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate psycopg's errors into ours, without the password."""
        try:
            yield
        except psycopg.Error as error:
            try:
                text = f"{self._what}: {explain(error, self._uri())}"
            except ConfigError:
                text = f"{self._what}: {type(error).__name__}"
            if is_login_refused(error):
                refused = text.removeprefix(f"{self._what}: ")
                raise self._unavailable(
                    f"{self._what} refuses the login in the Secret {self._secret.name}: {refused}"
                ) from None
            if isinstance(error, psycopg.errors.DiskFull):
                raise self._full(text) from None
            if not self._writes and isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                raise QueryRefused(f"{text}; only queries that read are run") from None
            denied = isinstance(
                error, psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidSchemaName
            )
            if is_unavailable(error) and not denied:
                raise self._unavailable(text) from None
            raise self._refused(text) from None
