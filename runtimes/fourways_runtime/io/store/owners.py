"""Whose the rows of a prediction store are: which uid a deployment's data belongs to.

A deployment that is deleted and made anew under its name is another deployment, with another uid.
The tables of the store identify a deployment by namespace and a *key*. The first uid of a name has
the name itself as its key, later ones have ``NAME@UID``, so no two of them share a row, however
long a worker of a deleted one goes on. Rows that a version without uids wrote stand under the plain
name: the first uid that is claimed adopts them, once.

A purged uid keeps its row, without a key: a worker of it that is still running cannot write again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from fourways_api import GatewayConfig, RuntimeConfig
from fourways_runtime.errors import ConfigError, StoreReadOnly

from .database import Database

_log = logging.getLogger(__name__)

_KEY = "SELECT key FROM @owners WHERE namespace = ? AND deployment = ? AND uid = ?"
_CLAIM = """
    INSERT INTO @owners (namespace, deployment, uid, key) VALUES (?, ?, ?,
        CASE WHEN EXISTS (SELECT 1 FROM @owners WHERE namespace = ? AND key = ?)
        THEN ? ELSE ? END) ON CONFLICT DO NOTHING"""


@dataclass(frozen=True, slots=True)
class Owners:
    """The current uids of a namespace's deployments, by name.

    A name without an entry belongs to no deployment: its rows are neither read nor written. With an
    empty uid, the rows are those under the plain name, as in all namespaces but this one.
    """

    namespace: str
    uids: Mapping[str, str] = field(default_factory=dict)

    def uid(self, namespace: str, deployment: str) -> str | None:
        """Return the uid of a deployment: empty for the plain name, None if there is none."""
        return self.uids.get(deployment) if namespace == self.namespace else ""

    def names(self, rows: Iterable[tuple[str | None, str, str]]) -> dict[str, str]:
        """Return names by key, of the current uids, from rows of key, deployment and uid."""
        known = {name: name for name, uid in self.uids.items() if not uid}
        current = ((key, name) for key, name, uid in rows if uid and uid == self.uids.get(name))
        return known | {key: name for key, name in current if key is not None}

    def values(self, namespace: str, deployment: str) -> tuple[str, str, str, str | None]:
        """Return the values of :data:`KEY`: its last resort is the plain name, or NULL."""
        uid = self.uid(namespace, deployment)
        return namespace, deployment, uid or "", deployment if uid == "" else None


NO_OWNERS = Owners("")
"""All rows under plain names: for a reader or writer that knows no uids."""


KEY = "coalesce((SELECT key FROM @owners WHERE namespace = ? AND deployment = ? AND uid = ?), ?)"
"""SQL for the key of a deployment; its values are those of :meth:`Owners.values`."""


def owners_of(config: RuntimeConfig) -> Owners:
    """Return the owner whose rows a worker reads and writes."""
    return Owners(config.namespace, {config.name: config.uid})


def owners_of_all(config: GatewayConfig) -> Owners:
    """Return the owners for whom a gateway answers."""
    return NO_OWNERS if config.owners is None else Owners(config.namespace, config.owners)


def key_of(database: Database, namespace: str, deployment: str, uid: str) -> str | None:
    """Return the key of a uid's rows; None if it has none. Raises StoreUnavailable."""
    found = database.rows(_KEY, (namespace, deployment, uid))
    return found[0][0] if found else None


def claim(database: Database, namespace: str, deployment: str, uid: str) -> str:
    """Return the key under which a uid writes and reads, made at the first call for it.

    Raises:
        ConfigError: the uid was purged.
        StoreUnavailable: the store does not answer.

    """
    if not uid:
        return deployment
    whose = (namespace, deployment, uid)
    found = database.rows(_KEY, whose)
    if not found:
        with database.transaction("\0".join(("owner", namespace, deployment))):
            first, later = deployment, f"{deployment}@{uid}"
            database.change(_CLAIM, (*whose, namespace, first, later, first))
        found = database.rows(_KEY, whose)
    key: str | None = found[0][0] if found else None
    if key is None:
        raise ConfigError(
            f"{namespace}/{deployment} (uid {uid}) was deleted and its predictions were purged"
        )
    return key


def open_claimed(
    open_database: Callable[[], Database], config: RuntimeConfig
) -> tuple[Database, str]:
    """Open the store for one deployment; return it with the key to write under.

    Raises ConfigError and StoreUnavailable as :func:`claim` does; the store is closed then.
    """
    database = open_database()
    try:
        return database, claim(database, config.namespace, config.name, config.uid)
    except BaseException:
        database.close()
        raise


def claimed(open_database: Callable[[], Database], owners: Owners) -> bool:
    """Claim the uids of a namespace's deployments, as a reader that is about to serve them.

    So the rows of a version without uids are adopted before the first question, and by the
    deployment that exists now. A reader without the right to write leaves this to the workers.
    Returns True. Raises StoreUnavailable.
    """
    try:
        with closing(open_database()) as database:
            for name, uid in owners.uids.items():
                try:
                    claim(database, owners.namespace, name, uid)
                except ConfigError as error:
                    _log.warning("%s", error)
    except StoreReadOnly as error:
        _log.warning("the uids of deployments are left to their workers: %s", error)
    return True
