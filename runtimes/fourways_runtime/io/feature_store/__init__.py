"""The feature database: the contract's inputs, looked up by entity key at request time.

Owns the database's address (the key ``uri`` of a mounted Secret; ``postgresql://``, ``redis://``,
``feast://`` or ``sqlite:///PATH`` selects the kind of database) and the coalescing of many requests
into few queries. Read only. Errors never show a password.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from fourways_api import EntityKey, FetchPolicy, InputField, Paths
from fourways_api.installing import install_command
from fourways_api.modes import FeatureLookup
from fourways_api.values import seconds
from fourways_runtime.errors import ConfigError
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.features import FeatureReader, Row

from ..mounted_secret import MountedSecret
from ..secret_uri import (
    AUTHORITY_KEY,
    FEAST,
    REDIS,
    TOKEN_KEY,
    read_database_uri,
    read_secret_uri,
    sqlite_path,
)
from .base import WHAT, FeatureDatabase, Wanted
from .cached import CachedFeatures
from .coalesced import CoalescedFeatures
from .monitor import FeatureMonitor
from .observed import FeatureMetrics

__all__ = ["FeatureMonitor", "FeatureReader", "Key", "Row", "open_features"]

_FEAST_PORT = 6566


def open_features(
    lookup: FeatureLookup,
    key: EntityKey,
    inputs: Sequence[str],
    paths: Paths,
    registry: CollectorRegistry | None = None,
    fields: Sequence[InputField] = (),
    policy: FetchPolicy = FetchPolicy(),  # noqa: B008  (frozen)
) -> CoalescedFeatures:
    """Return a reader of ``inputs`` on the running event loop; it connects on first use.

    ``fields`` are the contract's fields. If they are given, :meth:`FeatureReader.check` also checks
    the columns' types, and lists in SQLite are parsed.

    Raises:
        SecretRefused: the Secret does not list the deployment of ``paths``.
        ConfigError: the Secret has no URI, the URI names no supported database, or the query takes
            no keys.

    """
    secret = MountedSecret.of(lookup.database, paths)
    by_name = {field.name: field for field in fields}
    if lookup.as_of is not None and lookup.as_of not in inputs:
        inputs = (*inputs, lookup.as_of)
        by_name[lookup.as_of] = InputField(name=lookup.as_of, type="timestamp_us")
    wanted = Wanted(
        lookup.table,
        lookup.query,
        key,
        tuple(inputs),
        {name: by_name[name] for name in inputs if name in by_name},
        seconds(lookup.timeout),
    )
    if lookup.query is not None and "%(keys)s" not in lookup.query:
        raise ConfigError("the features' query does not use %(keys)s: it would read every entity")
    source, metrics = _source(wanted, secret, policy), FeatureMetrics(registry)
    if lookup.cache_ttl is None:
        return CoalescedFeatures(source, wanted.timeout, metrics)
    return CachedFeatures(source, wanted.timeout, metrics, seconds(lookup.cache_ttl))


def _source(wanted: Wanted, secret: MountedSecret, policy: FetchPolicy) -> FeatureDatabase:
    address = read_database_uri(secret, WHAT)
    if address.startswith(REDIS):
        return _redis(wanted, secret, policy)
    if address.startswith(FEAST):
        return _feast(wanted, secret, policy)
    if (path := sqlite_path(address, WHAT)) is not None:
        from .sqlite import SqliteSource

        return SqliteSource(wanted, path)
    from ..postgres.connection import check_hosts
    from .postgres import PostgresSource

    def uri() -> str:
        found = read_database_uri(secret, WHAT)
        check_hosts(found, policy, WHAT)
        return found

    uri()  # What is refused is refused now, not at the first request.
    return PostgresSource(wanted, uri)


def _redis(wanted: Wanted, secret: MountedSecret, policy: FetchPolicy) -> FeatureDatabase:
    from ..fetch.location import check_host

    def uri() -> str:
        found = read_database_uri(secret, WHAT)
        host = urlsplit(found).hostname if found.startswith(REDIS) else None
        if not host:
            raise ConfigError(f"the URI of {WHAT} is not redis://HOST:PORT/NUMBER")
        check_host(host, policy)
        return found

    uri()  # What is refused is refused now, not at the first request.
    try:
        from .redis import RedisSource
    except ImportError:
        raise ConfigError(f"features in Redis need a package: {install_command('redis')}") from None
    authority = secret.folder / AUTHORITY_KEY
    return RedisSource(wanted, uri, authority if authority.exists() else None)


def _feast(wanted: Wanted, secret: MountedSecret, policy: FetchPolicy) -> FeatureDatabase:
    from ..fetch.location import check_host
    from .feast import FeastSource

    def url() -> str:
        scheme, _, place = read_database_uri(secret, WHAT).partition("://")
        found = urlsplit(f"//{place}")
        if f"{scheme}://" not in FEAST or not found.hostname or found.path.strip("/"):
            raise ConfigError(f"the URI of {WHAT} is not feast://HOST:PORT")
        check_host(found.hostname, policy)
        host = f"[{found.hostname}]" if ":" in found.hostname else found.hostname
        try:
            port = found.port or _FEAST_PORT
        except ValueError:
            raise ConfigError(f"the URI of {WHAT} is not feast://HOST:PORT") from None
        return f"{'https' if scheme == 'feasts' else 'http'}://{host}:{port}"

    def token() -> str | None:
        file = secret.folder / TOKEN_KEY
        return read_secret_uri(file, WHAT) if file.exists() else None

    url()  # What is refused is refused now, not at the first request.
    authority = secret.folder / AUTHORITY_KEY
    return FeastSource(wanted, url, token, authority if authority.exists() else None)
