"""Hosts and networks: what a workload may connect to. One list for the fetcher and the policies."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORBIDDEN_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        # Link-local: metadata of AWS, Azure, Google, Oracle, DigitalOcean, OpenStack and others
        # (169.254.169.254), of ECS and EKS (169.254.170.2, 169.254.170.23).
        "169.254.0.0/16",
        "fe80::/10",
        # Metadata services that are not link-local: Alibaba, Azure's host, Oracle's older one.
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        # AWS (metadata and pod identity), Google, Oracle and Scaleway over IPv6.
        "fd00:ec2::254/128",
        "fd00:ec2::23/128",
        "fd20:ce::254/128",
        "fd00:c1::a9fe:a9fe/128",
        "fd00:42::42/128",
        # Multicast.
        "224.0.0.0/4",
        "ff00::/8",
    )
)
"""Networks that no workload may reach, whatever its spec names."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _embedding(network: Network) -> Network | None:
    """Return the addresses of NAT64 that lead to an IPv4 network."""
    if not isinstance(network, ipaddress.IPv4Network):
        return None
    start = int(NAT64.network_address) | int(network.network_address)
    return ipaddress.IPv6Network((start, 96 + network.prefixlen))


POLICY_EXCEPTIONS: tuple[Network, ...] = (
    *FORBIDDEN_NETWORKS,
    *(found for network in FORBIDDEN_NETWORKS if (found := _embedding(network)) is not None),
)
"""The forbidden networks, and the same by NAT64: a policy sees the address before translation."""


def is_forbidden(address: Address) -> bool:
    """Tell whether no workload may connect to an address, also if it embeds a forbidden one."""
    found: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        found += [one for one in (address.ipv4_mapped, address.sixtofour) if one is not None]
    return any(
        one.version == network.version and one in network
        for one in found
        for network in FORBIDDEN_NETWORKS
    )


def blocks(cidrs: Iterable[str]) -> list[dict[str, object]]:
    """Return the ``ipBlock`` peers of a policy for these networks, without the forbidden ones.

    Raises:
        ValueError: a text is not a network.

    """
    return [
        {"ipBlock": {"cidr": cidr} | ({"except": list(inside)} if inside else {})}
        for cidr, inside in filter(None, map(_block, cidrs))
    ]


@lru_cache(256)
def _block(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Return a network and the forbidden ones inside it; None if it is inside a forbidden one."""
    network = ipaddress.ip_network(text)
    same = [one for one in POLICY_EXCEPTIONS if one.version == network.version]
    if any(network.subnet_of(one) for one in same):  # type: ignore[arg-type]
        return None
    inside = (str(one) for one in same if one.subnet_of(network))  # type: ignore[arg-type]
    return str(network), tuple(inside)
