"""Network policies: a workload reaches what its spec names, and is reached by who may ask it. Pure.

Policies know addresses, not names, so egress is limited by port and by the installation's networks.
Addresses of metadata services are always excluded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from fourways_api.hosts import blocks

from ..facts import Json, OperatorSettings
from . import parts

_DNS_PORTS: tuple[Json, ...] = (
    {"protocol": "UDP", "port": 53},
    {"protocol": "TCP", "port": 53},
)


def network_policy(
    meta: Json,
    pods: Json,
    settings: OperatorSettings,
    *,
    egress_ports: Iterable[int],
    ingress: Iterable[tuple[Iterable[int], Sequence[Json]]] = (),
) -> Json:
    """Return a policy that denies all but DNS, the named ports, and the served ones.

    ``ingress`` lists served ports, with the peers that may connect to them; none: nobody.
    """
    egress: list[Json] = []
    if dns := _peers(settings.dns_peers):
        egress.append({"to": dns, "ports": list(_DNS_PORTS)})
    ports = _tcp(egress_ports)
    networks = blocks(settings.egress_networks)
    if ports and networks:  # a rule without ports or peers would allow all of them
        egress.append({"to": networks, "ports": ports})
    spec: Json = {
        "podSelector": {"matchLabels": pods},
        "policyTypes": ["Ingress", "Egress"],
        "egress": egress,
    }
    if served := [{"from": peers, "ports": _tcp(ports)} for ports, peers in ingress if peers]:
        spec["ingress"] = served
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": spec,
    }


def callers_of_gateway(settings: OperatorSettings) -> list[Json]:
    """Return who may connect to the gateway: as the installation says, and the operator."""
    return [*_peers(settings.gateway_peers), *_operator(settings)]


def gateways() -> list[Json]:
    """Return the namespace's gateway, which asks model servers."""
    gateway = {parts.MANAGED_BY: parts.MANAGER, parts.COMPONENT_LABEL: "gateway"}
    return [{"podSelector": {"matchLabels": gateway}}]


def callers_of_workers(settings: OperatorSettings) -> list[Json]:
    """Return who may connect to a worker's port: what reads metrics, and the operator.

    The operator asks running workers for their faults.
    """
    return [*_peers(settings.metrics_peers), *_operator(settings)]


def _operator(settings: OperatorSettings) -> list[Json]:
    namespace, _, release = settings.identity.partition("/")
    if not release:
        return []
    labels = {
        "app.kubernetes.io/name": "fourways",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": "operator",
    }
    return [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "podSelector": {"matchLabels": labels},
        }
    ]


def _peers(text: str) -> list[Json]:
    peers: list[Json] = orjson.loads(text)
    return peers


def _tcp(ports: Iterable[int]) -> list[Json]:
    return [{"protocol": "TCP", "port": port} for port in sorted(set(ports))]
