"""What the installation refuses in a spec that is valid by itself. Pure.

The CRD's rules do not know the values of the chart: which images, schemes and Secrets the admin
lets authors of deployments use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from fourways_api import ModelDeployment, Problem
from fourways_api.addresses import Address, InvalidAddress
from fourways_api.audience import host_is_listed
from fourways_api.hosts import is_forbidden
from fourways_api.modes.streaming import GROUP_PREFIX, default_group

from .facts import Json, OperatorSettings
from .plan.realtime import DEPLOYMENT_IN_NAME
from .specs import ParsedSpec, parsed_spec

_URIS = frozenset({"uri", "publish"})

OWN_KEYS = ("fourways.dev/", "app.kubernetes.io/managed-by", "serving.kserve.io/")
"""Beginnings of labels and annotations that operator and KServe manage themselves."""


def admitted_spec(document: Json, settings: OperatorSettings) -> ParsedSpec:
    """Return a live deployment's spec if it is valid and the installation admits it."""
    found = parsed_spec(document)
    spec = found.spec
    if spec is None:
        return found
    problems = found.once(("refusals", settings), lambda: refusals(spec, settings))
    return ParsedSpec(None, problems) if problems else found


def refusals(deployment: ModelDeployment, settings: OperatorSettings) -> tuple[Problem, ...]:
    """Return why the installation does not admit a spec; empty if it does."""
    spec = deployment.spec.to_json()
    return (
        *_image(spec.get("image"), "spec.image", settings),
        *_image(_mounted_image(deployment), "spec.model.uri", settings),
        *_concurrency(deployment, settings),
        *_keys(spec.get("pod") or {}, settings),
        *_host_of_kserve(deployment, settings),
        *_group(deployment),
        *(
            Problem(
                f"spec.{path}",
                f"{name} is the Secret of {whose}, which no spec may name",
                "make a Secret of its own for this use: fourways secret create",
            )
            for path, name in _fields(spec, frozenset({"secretName"}))
            if (whose := _installation_secret(name, settings))
        ),
        *(
            Problem(
                f"spec.{path}",
                f"the installation allows no {scheme} URIs",
                f"use one of {', '.join(settings.allowed_schemes) or 'no scheme'}",
            )
            for path, uri in _fields(spec, _URIS)
            if (scheme := _scheme(uri)) not in (None, *settings.allowed_schemes)
        ),
    )


def _installation_secret(name: str, settings: OperatorSettings) -> str:
    """Return whose a Secret of the installation is; empty if it is none.

    The kubelet would mount it, and an image of the author's own would read it.
    """
    certificates = re.escape(settings.server_tls_secret).replace(
        re.escape(DEPLOYMENT_IN_NAME), "[a-z0-9-]+"
    )
    if name in (settings.store_secret, settings.gateway_store_secret):
        return "the prediction store"
    if name == settings.gateway_tls_secret:
        return "the gateways' certificate"
    if certificates and (re.fullmatch(certificates, name) or name == settings.server_ca_secret):
        return "the model servers' certificates"
    if settings.access is not None and name == settings.access.keys_secret:
        return "the callers of gateways"
    return ""


def _concurrency(deployment: ModelDeployment, settings: OperatorSettings) -> Iterator[Problem]:
    realtime = deployment.spec.realtime
    if realtime is not None and realtime.target_concurrency and not settings.prometheus_url:
        yield Problem(
            "spec.realtime.targetConcurrency",
            "the installation names no Prometheus, from which KEDA would read the requests",
            "remove it (targetCpuPercent decides then), or ask the cluster's admin to set the "
            "chart's autoscaling.prometheusUrl",
        )


_HOST_SCHEMES = frozenset({"http", "https", "oci"})


def _host_of_kserve(deployment: ModelDeployment, settings: OperatorSettings) -> Iterator[Problem]:
    """Yield the host of a model that KServe fetches: our fetcher, which holds it, does not run."""
    realtime = deployment.spec.realtime
    if realtime is None or realtime.runtime is None:
        return
    address = Address.parse(deployment.spec.model.uri)
    if address.scheme not in _HOST_SCHEMES:
        return  # a claim or a bucket, whose endpoint the author does not choose
    host, allowed = address.authority, settings.allowed_hosts
    if _is_forbidden_address(host):
        yield Problem(
            "spec.model.uri",
            f"{host} is a link-local or metadata address, which is never contacted",
            "use the host that has the model",
        )
    elif "*" not in allowed and not host_is_listed(host, address.port, allowed):
        yield Problem(
            "spec.model.uri",
            f"the installation does not allow the host {host}",
            f"use {', '.join(allowed)}"
            if allowed
            else "ask the cluster's admin to list it in the chart's fetch.hosts",
        )


def _group(deployment: ModelDeployment) -> Iterator[Problem]:
    """Yield a consumer group that is another deployment's: the two would share its partitions."""
    streaming = deployment.spec.streaming
    kafka = streaming.source.kafka if streaming else None
    group = kafka.consumer_group if kafka else None
    if group and group.startswith(GROUP_PREFIX) and group != default_group(*deployment.key):
        yield Problem(
            "spec.streaming.source.kafka.consumerGroup",
            f"groups that begin with {GROUP_PREFIX} are the default ones of deployments",
            "remove it, or choose another name",
        )


def _is_forbidden_address(host: str) -> bool:
    try:
        return is_forbidden(ip_address(host))
    except ValueError:
        return False  # a name; the NetworkPolicy knows its addresses


def _mounted_image(deployment: ModelDeployment) -> str | None:
    """Return the image that the node mounts as the model, with the node's own credentials."""
    model = deployment.spec.model
    return None if model.image_path is None else model.uri.removeprefix("oci://")


def _image(image: str | None, place: str, settings: OperatorSettings) -> Iterator[Problem]:
    allowed = settings.allowed_images
    if image is None or allowed is None or any(_matches(image, one) for one in allowed):
        return
    yield Problem(
        place,
        "the installation does not allow this image",
        f"use an image of {', '.join(allowed)}"
        if allowed
        else "ask the cluster's admin to list it in the chart's images.allowed",
    )


def _keys(pod: Json, settings: OperatorSettings) -> Iterator[Problem]:
    """Yield the labels and annotations that the admin does not let authors set.

    A label can join somebody else's Service or NetworkPolicy, and an annotation can take a cloud's
    role.
    """
    allowed = settings.allowed_keys
    for field in ("labels", "annotations", "serviceAccountAnnotations"):
        for key in pod.get(field) or {}:
            if key.startswith(OWN_KEYS):
                yield Problem(f"spec.pod.{field}", f"{key} is the operator's own", "remove it")
            elif allowed is not None and not any(_matches(key, one) for one in allowed):
                yield Problem(
                    f"spec.pod.{field}",
                    f"the installation does not allow {key}",
                    f"use {', '.join(allowed)}"
                    if allowed
                    else "ask the cluster's admin to list it in the chart's pods.allowedKeys",
                )


def _matches(text: str, pattern: str) -> bool:
    parts = (
        ".*" if part == "**" else "[^/]*" if part == "*" else re.escape(part)
        for part in re.split(r"(\*\*|\*)", pattern)
    )
    return re.fullmatch("".join(parts), text) is not None


def _scheme(uri: str) -> str | None:
    try:
        return Address.parse(uri).scheme
    except InvalidAddress:
        return None


def _fields(node: Any, names: frozenset[str], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and text of each field with one of these names."""
    if isinstance(node, dict):
        for name, value in node.items():
            where = f"{path}.{name}" if path else name
            if name in names and isinstance(value, str):
                yield where, value
            else:
                yield from _fields(value, names, where)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _fields(value, names, f"{path}[{index}]")
