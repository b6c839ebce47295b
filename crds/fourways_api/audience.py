"""The audience of a Secret: the deployments and hosts that its owner lists in the Secret itself.

Whoever may create a ModelDeployment can name any Secret of the namespace in it, together with any
host. The runtime therefore uses a Secret only for those that it lists, in two keys beside its
others. The value of a key is a list of names, separated by commas or white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

DEPLOYMENTS_KEY = "fourways.dev-deployments"
"""Key with the names of the deployments that may use the Secret; ``*`` for all of the namespace."""

HOSTS_KEY = "fourways.dev-hosts"
"""Key with the hosts that the Secret may be sent to: HOST, ``*.DOMAIN`` or HOST:PORT."""

AUDIENCE_KEYS = frozenset({DEPLOYMENTS_KEY, HOSTS_KEY})

EVERY_DEPLOYMENT = "*"

_SEPARATOR = re.compile(r"[\s,]+")


def listed(text: str) -> tuple[str, ...]:
    """Return the names in the value of a key of the audience."""
    return tuple(name for name in _SEPARATOR.split(text) if name)


def lists_deployment(names: Iterable[str], deployment: str) -> bool:
    """Tell whether a list of deployments contains one. ``*`` contains every one."""
    return any(name in (EVERY_DEPLOYMENT, deployment) for name in names)


def host_is_listed(host: str, port: int | None, hosts: Iterable[str]) -> bool:
    """Tell whether a list of hosts contains one.

    ``*.example.com`` contains the subdomains of example.com, not itself; an address has none. An
    entry with a port contains that port only. A bare ``*`` is not a list of hosts, and contains
    none.
    """
    wanted = host.lower().rstrip(".").strip("[]")
    for entry in hosts:
        name, entry_port = _split(entry.lower())
        if entry_port is not None and entry_port != port:
            continue
        if name == wanted:
            return True
        if name.startswith("*.") and wanted.endswith(name[1:]) and not _is_address(wanted):
            return True
    return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _split(entry: str) -> tuple[str, int | None]:
    """Return host and port of an entry; an IPv6 address with a port is in brackets."""
    host, separator, port = entry.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if separator and port.isascii() and port.isdigit() and (bracketed or ":" not in host):
        return host.rstrip(".").strip("[]"), int(port)
    return entry.rstrip(".").strip("[]"), None
