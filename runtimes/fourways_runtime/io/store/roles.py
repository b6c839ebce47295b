"""The database of one namespace's prediction store, and the roles that use it.

The database is the fence between namespaces: each has its own, with two roles that may connect to
no other database that is fenced so. The role that runs this owns the fixed tables and changes them;
workers create, write and drop tables of runs and streams; gateways read.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from fourways_runtime.errors import ConfigError

from ..postgres.connection import conninfo, explain, is_unavailable, translated
from ..secret_uri import POSTGRESQL
from .postgres_schema import ensure_schema

_CONNECT_SECONDS = 10.0
_MAX_NAME = 54
"""PostgreSQL's names have 63 bytes; the gateway's role has a suffix."""

_OWN = """
    SELECT c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'fourways' AND c.relkind IN ('r', 'v')
    AND c.relname ~ '^(run|live)_[0-9a-f]{24}' AND pg_get_userbyid(c.relowner) <> %s"""
_GRANTS = """
    REVOKE ALL ON DATABASE {database} FROM PUBLIC;
    GRANT CONNECT ON DATABASE {database} TO {worker}, {gateway};
    REVOKE ALL ON SCHEMA fourways FROM PUBLIC;
    GRANT USAGE, CREATE ON SCHEMA fourways TO {worker};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA fourways TO {worker};
    REVOKE INSERT, UPDATE, DELETE ON fourways.schema_version FROM {worker};
    GRANT USAGE ON SCHEMA fourways TO {gateway};
    GRANT SELECT ON ALL TABLES IN SCHEMA fourways TO {gateway};
    ALTER DEFAULT PRIVILEGES FOR ROLE {worker} IN SCHEMA fourways GRANT SELECT ON TABLES
        TO {gateway};"""


@dataclass(frozen=True, slots=True)
class StoreRole:
    """A role; its address is None if the role existed and keeps its password."""

    name: str
    uri: str | None


@dataclass(frozen=True, slots=True)
class StoreRoles:
    """The database of a namespace and its roles."""

    database: str
    worker: StoreRole
    gateway: StoreRole


def database_name(namespace: str) -> str:
    """Return the name of a namespace's database, which is also that of its workers' role."""
    name = "fourways_" + namespace.replace("-", "_")
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 9]}_{sha256(namespace.encode()).hexdigest()[:8]}"


def prepare_store(
    admin_uri: str, database: str, *, address: str = "", new_passwords: bool = False
) -> StoreRoles:
    """Create or upgrade a database with its tables, roles and rights; safe to repeat.

    ``admin_uri`` is the address of a role with CREATEDB and CREATEROLE on the same server, and
    ``address`` the HOST:PORT for the others if it differs from that in ``admin_uri``.

    Raises:
        ConfigError: the address or the name is invalid, the role lacks a right, or the store's
            version is newer.
        StoreUnavailable: the database cannot be reached.

    """
    if not admin_uri.startswith(POSTGRESQL):
        raise ConfigError(
            "the admin's address is not postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,53}", database):
        raise ConfigError(f"{database!r} is no name for a database: use a-z, 0-9 and _, at most 54")
    try:
        with translated(admin_uri):
            made = _roles(admin_uri, database, new_passwords)
            with _connected(_uri(admin_uri, database=database)) as connection:
                ensure_schema(connection)
                with connection.transaction():
                    _grant(connection, database)
    except psycopg.Error as error:
        if is_unavailable(error) and not isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise
        raise ConfigError(f"the database refuses: {explain(error, admin_uri)}") from None
    roles = [
        StoreRole(name, password and _uri(admin_uri, database, (name, password), address))
        for name, password in made.items()
    ]
    return StoreRoles(database, *roles)


def _roles(admin_uri: str, database: str, new_passwords: bool) -> dict[str, str | None]:
    """Create the roles and the database; return the new passwords by role, workers first."""
    made: dict[str, str | None] = {}
    with _connected(admin_uri) as connection:
        for name in (database, f"{database}_gateway"):
            found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,))
            exists = found.fetchone() is not None
            made[name] = None if exists and not new_passwords else secrets.token_urlsafe(24)
            role = sql.Identifier(name)
            if not exists:
                connection.execute(sql.SQL("CREATE ROLE {}").format(role))
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN NOINHERIT").format(role))
            if (password := made[name]) is not None:
                # Hashed here: the server's log may show the statement.
                secret = connection.pgconn.encrypt_password(
                    password.encode(), name.encode(), b"scram-sha-256"
                ).decode()
                change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(secret))
                connection.execute(change)
            _join(connection, role)
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,))
        if found.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return made


def _join(connection: psycopg.Connection, role: sql.Identifier) -> None:
    """Become a member, to set the default rights on tables that the role will create."""
    row = connection.execute(
        "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if row and not row[0]:
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))


def _grant(connection: psycopg.Connection, database: str) -> None:
    worker = sql.Identifier(database)
    names = {"database": worker, "worker": worker, "gateway": sql.Identifier(f"{database}_gateway")}
    for statement in _GRANTS.strip().split(";\n"):
        connection.execute(sql.SQL(statement.rstrip("; \n")).format(**names))
    for name, kind in connection.execute(_OWN, (database,)).fetchall():
        # Made by a role that this store was used with before.
        what = sql.SQL("VIEW" if kind == "v" else "TABLE")
        table = sql.Identifier("fourways", name)
        connection.execute(sql.SQL("ALTER {} {} OWNER TO {}").format(what, table, worker))


def _connected(uri: str) -> psycopg.Connection:
    return psycopg.connect(conninfo(uri, _CONNECT_SECONDS), autocommit=True)


def _uri(
    admin_uri: str, database: str, login: tuple[str, str] | None = None, address: str = ""
) -> str:
    """Return the admin's address with another database, login or place."""
    parts = urlsplit(admin_uri)
    given, _, place = parts.netloc.rpartition("@")
    user = ":".join(quote(part, safe="") for part in login) if login else given
    where = f"{user}@{address or place}" if user else address or place
    return urlunsplit(parts._replace(netloc=where, path=f"/{quote(database, safe='')}"))
