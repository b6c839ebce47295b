"""The local cluster's network: one namespace, connected to the host by one veth pair.

The host does not forward packets, so the cluster cannot reach the Internet and cannot be reached
from it; host and node communicate over the link. The namespace still needs a default route;
otherwise traffic to a ClusterIP fails with "no route to host" before kube-proxy's rules apply.
"""

import json
from pathlib import Path

from tools.cluster.config import Checkout
from tools.cluster.errors import ClusterError
from tools.cluster.shell import run

_NETNS = Path("/run/netns")


def enter(checkout: Checkout) -> list[str]:
    """Prefix of a command that is to run inside the namespace.

    nsenter and not `ip netns exec`, which mounts a new /sys and hides the cgroups.
    """
    return ["nsenter", f"--net={_NETNS / checkout.netns}", "--"]


def make(checkout: Checkout) -> None:
    """Create the namespace and the link; neither may exist yet."""
    _refuse_taken_address(checkout)
    run(["ip", "netns", "add", checkout.netns])
    host, node, inside = checkout.veth_host, checkout.veth_node, enter(checkout)
    run(["ip", "link", "add", host, "type", "veth", "peer", "name", node, "netns", checkout.netns])
    run(["ip", "addr", "add", f"{checkout.host_ip}/30", "dev", host])
    run(["ip", "link", "set", host, "up"])
    run([*inside, "ip", "link", "set", "lo", "up"])
    run([*inside, "ip", "addr", "add", f"{checkout.node_ip}/30", "dev", node])
    run([*inside, "ip", "link", "set", node, "up"])
    run([*inside, "ip", "route", "replace", "default", "via", checkout.host_ip, "dev", node])
    run([*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def remove(checkout: Checkout) -> None:
    """Remove the namespace and the link; ignore what does not exist."""
    if (_NETNS / checkout.netns).exists():
        run(["ip", "netns", "delete", checkout.netns])
    # The kernel removes the pair with the namespace, but only when the last process that was in it
    # is reaped: until then the host's end must be deleted by name.
    if _link_exists(checkout.veth_host):
        try:
            run(["ip", "link", "delete", checkout.veth_host])
        except ClusterError:
            if _link_exists(checkout.veth_host):
                raise


def remains(checkout: Checkout) -> list[str]:
    """The namespace and link that exist."""
    found = [checkout.netns] if (_NETNS / checkout.netns).exists() else []
    return found + ([checkout.veth_host] if _link_exists(checkout.veth_host) else [])


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _refuse_taken_address(checkout: Checkout) -> None:
    """The hashes of two checkouts may select the same /30: a chance of 1 in 16,384, but then
    confusing."""
    for link in json.loads(run(["ip", "-json", "-4", "addr"])):
        if any(address.get("local") == checkout.host_ip for address in link["addr_info"]):
            raise ClusterError(
                f"{checkout.host_ip} is taken by {link['ifname']}: "
                "take the other checkout's cluster down, or move this checkout"
            )
