"""The operator's flags and environment variables, and the settings that plans depend on."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fourways_api.addresses import SUBDOMAIN
from fourways_api.callers import GatewayAccess

from .facts import OperatorSettings
from .plan.parts import ports_of
from .plan.realtime import DEPLOYMENT_IN_NAME

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def settings_of(options: argparse.Namespace) -> OperatorSettings:
    """Return the settings that plans depend on, from the options."""
    return OperatorSettings(
        runtime_image=options.runtime_image,
        ray_image=options.ray_image,
        signing_image=options.signing_image,
        store_secret=options.store_secret,
        gateway_store_secret=options.gateway_store_secret or None,
        image_pull_policy=options.image_pull_policy,
        image_pull_secrets=options.image_pull_secrets,
        authorities=options.authorities,
        fixed_user=options.fixed_user == "true",
        gateway_replicas=options.gateway_replicas,
        allowed_hosts=options.allowed_hosts,
        allowed_schemes=tuple(s for s in options.allowed_schemes if s != "file"),
        allowed_images=options.allowed_images,
        allowed_keys=options.allowed_keys,
        egress_networks=options.egress_networks,
        dns_peers=options.dns_peers,
        gateway_peers=options.gateway_peers,
        metrics_peers=options.metrics_peers,
        store_port=options.store_port,
        identity=options.identity,
        cluster_name=options.cluster_name,
        prometheus_url=options.prometheus_url,
        egress_ports=(
            *(int(port) for port in options.egress_ports),
            *ports_of([options.tracing_endpoint] if options.tracing_endpoint else []),
        ),
        access=options.gateway_auth,
        gateway_pod=options.gateway_pod,
        gateway_tls_secret=options.gateway_tls_secret,
        server_tls_secret=options.server_tls_secret,
        server_ca_secret=options.server_ca_secret,
        gateway_origins=options.gateway_origins,
        gateway_grpc=options.gateway_grpc == "true",
        access_log=options.access_log == "true",
        tracing=_tracing(options.tracing_endpoint, options.tracing_ratio),
        subject=options.subject,
    )


def _tracing(endpoint: str, ratio: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that OpenTelemetry's libraries read."""
    if not endpoint:
        return ()
    return (
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", ratio),
    )


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the flags; each defaults to the environment variable FOURWAYS_ plus its name."""
    parser = argparse.ArgumentParser(
        "fourways_operator", description="Reconciles ModelDeployments."
    )

    defaults = OperatorSettings(runtime_image="")
    schemes = ",".join(s for s in defaults.allowed_schemes if s != "file")
    networks = ",".join(defaults.egress_networks)

    def flag(name: str, default: str, kind: Callable[[str], Any], text: str) -> None:
        value = os.environ.get("FOURWAYS_" + name.upper().replace("-", "_"), default)
        parser.add_argument(f"--{name}", default=value, type=kind, help=f"{text} ({value or '-'})")

    flag("runtime-image", "fourways/runtime:latest", str, "image of the workloads")
    flag("ray-image", "fourways/ray:latest", str, "image of Ray clusters")
    flag("signing-image", "", str, "image of what signs bundles; empty: the workloads'")
    flag("store-secret", "fourways-store", str, "Secret with the prediction store's address")
    flag("gateway-store-secret", "", str, "Secret with the address that gateways read the store by")
    flag("store-port", "5432", int, "port of the prediction store")
    flag("egress-ports", "", _words, "additional ports that workloads may connect to")
    flag("image-pull-policy", "IfNotPresent", str, "pull policy of the workloads' image")
    flag("image-pull-secrets", "", _words, "Secrets of the images' registry, in each namespace")
    flag(
        "authorities",
        "",
        _key_of_object,
        "ConfigMap/KEY, in each namespace, of trusted authorities",
    )
    flag("fixed-user", "true", str, "false: the platform assigns the user of pods")
    flag("gateway-replicas", "1", int, "replicas of each namespace's gateway")
    flag("allowed-hosts", "*", _words, "hosts workloads may connect to; * for all")
    flag("allowed-schemes", schemes, _words, "URI schemes workloads may fetch from, never file")
    flag("allowed-images", "", _words, "patterns of images that specs may name; empty for none")
    flag(
        "allowed-keys", "", _words, "patterns of labels and annotations that specs may set on pods"
    )
    flag("egress-networks", networks, _words, "networks (CIDR) that workloads may connect to")
    flag("dns-peers", defaults.dns_peers, _json, "peers of a NetworkPolicy that answer DNS")
    flag("gateway-peers", defaults.gateway_peers, _json, "peers that may connect to gateways")
    flag("metrics-peers", "[]", _json, "peers that may read metrics of model servers and workers")
    flag("access-log", "false", str, "true: gateways and model servers log each request")
    flag("tracing-endpoint", "", str, "URL that traces are sent to by OTLP over HTTP; empty: none")
    flag("tracing-ratio", "1", str, "share of the requests without a parent that are traced")
    flag("gateway-auth", "", _access, "who may send requests to gateways, as JSON")
    flag("gateway-pod", "{}", _object, "labels, annotations and placement of gateways, as JSON")
    flag("gateway-tls-secret", "", str, "Secret with the gateways' certificate; empty: no TLS")
    flag("server-tls-secret", "", str, "Secret with the model servers' certificate; empty: no TLS")
    flag("server-ca-secret", "", str, "Secret with the authority of these certificates")
    flag("gateway-origins", "", _words, "origins whose web pages may use gateways; *: all")
    flag("gateway-grpc", "false", str, "true: gateways also serve the protocol over gRPC")
    flag("subject", "", str, "subject of the operator's own token, which gateways accept")
    flag("identity", "", str, "name of this installation, under which it holds namespaces")
    flag("prometheus-url", "", str, "Prometheus that KEDA reads the gateways' metrics from")
    flag("cluster-name", "", _cluster, "name of this cluster, which device bundles are signed for")
    flag("namespaces", _own_namespace(), _namespaces, "namespaces to watch; * for all")
    flag("resync-interval", "300", float, "seconds between relists")
    flag("workers", "4", int, "number of concurrent reconciles")
    flag("port", "8081", int, "port of /healthz, /readyz and /metrics")
    flag("log-level", "INFO", str.upper, "DEBUG, INFO, WARNING or ERROR")
    options = parser.parse_args(arguments)
    if DEPLOYMENT_IN_NAME in options.server_tls_secret and not options.server_ca_secret:
        parser.error(
            f"--server-tls-secret has {DEPLOYMENT_IN_NAME}: --server-ca-secret names the authority"
        )
    return options


def _cluster(text: str) -> str:
    if text and not re.fullmatch(SUBDOMAIN, text):
        raise argparse.ArgumentTypeError("must be a name: a-z, 0-9, hyphens and dots")
    return text


def _key_of_object(text: str) -> tuple[str, str] | None:
    name, _, key = text.partition("/")
    if not name:
        return None
    if not key:
        raise argparse.ArgumentTypeError("must be NAME/KEY")
    return name, key


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _json(text: str) -> str:
    """Return the text of a JSON list. Raises ValueError."""
    if not isinstance(json.loads(text), list):
        raise ValueError("not a list")
    return text


def _object(text: str) -> str:
    """Return the text of a JSON object. Raises ValueError."""
    if not isinstance(json.loads(text), dict):
        raise ValueError("not an object")
    return text


def _access(text: str) -> GatewayAccess | None:
    return GatewayAccess.model_validate_json(text) if text.strip() else None


def _namespaces(text: str) -> tuple[str, ...]:
    words = _words(text)
    return () if "*" in words else words


def _own_namespace() -> str:
    return OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.exists() else "default"
