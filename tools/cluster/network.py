"""The local cluster's network: one namespace, joined to the host by one veth pair.

The host does not forward, so nothing in the cluster reaches the world and nothing in the world the
cluster; host and node talk over the link. The namespace still needs a default route, or traffic to
a ClusterIP fails with "no route to host" before kube-proxy's rules see it.
"""

import json
from pathlib import Path

from tools.cluster.config import Checkout
from tools.cluster.errors import ClusterError
from tools.cluster.shell import run

_NETNS = Path("/run/netns")


def enter(checkout: Checkout) -> list[str]:
    """Words to put before a command that is to run inside the namespace.

    nsenter and not `ip netns exec`: that one mounts a new /sys and hides the cgroups.
    """
    return ["nsenter", f"--net={_NETNS / checkout.netns}", "--"]


def make(checkout: Checkout) -> None:
    """Make the namespace and the link; nothing of that name exists yet."""
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
    """Remove the namespace and the link; what is not there is not missed."""
    if (_NETNS / checkout.netns).exists():
        run(["ip", "netns", "delete", checkout.netns])
    # The kernel takes the pair away with the namespace, but only once the last process that was
    # in it is reaped: until then the host's end must be deleted by name.
    if _link_exists(checkout.veth_host):
        try:
            run(["ip", "link", "delete", checkout.veth_host])
        except ClusterError:
            if _link_exists(checkout.veth_host):
                raise


def remains(checkout: Checkout) -> list[str]:
    """Namespace and link that exist."""
    found = [checkout.netns] if (_NETNS / checkout.netns).exists() else []
    return found + ([checkout.veth_host] if _link_exists(checkout.veth_host) else [])


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _refuse_taken_address(checkout: Checkout) -> None:
    """Two checkouts' hashes may fall on the same /30; one in 16,384, but then baffling."""
    for link in json.loads(run(["ip", "-json", "-4", "addr"])):
        if any(address.get("local") == checkout.host_ip for address in link["addr_info"]):
            raise ClusterError(
                f"{checkout.host_ip} is taken by {link['ifname']}: "
                "take the other checkout's cluster down, or move this checkout"
            )
