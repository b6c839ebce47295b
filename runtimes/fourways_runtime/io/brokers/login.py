"""A broker's login: to which servers the Secret may be sent."""

from __future__ import annotations

from fourways_api.addresses import brokers

from ..mounted_secret import MountedSecret


def check_listed(secret: MountedSecret, servers: str, default_port: int | None = None) -> None:
    """Check that a Secret lists every server of a manifest's list of brokers.

    Raises:
        SecretRefused: it does not list the deployment, or one of the servers.
        Unavailable: it cannot be read.

    """
    for server in brokers(servers):
        secret.for_host(server.authority, server.port or default_port)
