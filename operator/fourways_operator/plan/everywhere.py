"""What the installation says of every pod that is planned: pull Secrets, authorities, user. Pure.

No mode knows of it: it is added to finished objects, so that no mode can forget it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..facts import Json, OperatorSettings

AUTHORITIES_DIR = "/etc/fourways/authorities"
_FILE = "ca.crt"
_VOLUME = "authorities"

_USER_FIELDS = frozenset({"runAsUser", "runAsGroup", "fsGroup"})

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Read by OpenSSL, httpx, aiohttp, botocore and Rust's libraries; and by the exporter of traces."""


def dressed(objects: Iterable[Json], settings: OperatorSettings) -> tuple[Json, ...]:
    """Return the objects with the installation's part in each of their pods."""
    made = tuple(objects)
    if settings.image_pull_secrets or settings.authorities or not settings.fixed_user:
        for each in made:
            for pod in pods_of(each):
                if not settings.fixed_user:
                    _leave_user_to_the_platform(pod)
                _add_pull_secrets(pod, settings.image_pull_secrets)
                if settings.authorities:
                    _add_authorities(pod, *settings.authorities)
    return made


def installed_like(pod: Json, settings: OperatorSettings) -> OperatorSettings:
    """Return settings with the pull Secrets of a pod of the installation, and its kind of user.

    ``pod`` is the spec of a pod, such as the gateway's; of an empty one nothing is known.
    """
    secrets = tuple(each["name"] for each in pod.get("imagePullSecrets") or [])
    security = pod.get("securityContext")
    fixed = security is None or "runAsUser" in security
    return replace(settings, image_pull_secrets=secrets, fixed_user=fixed)


def pods_of(value: object) -> Iterator[Json]:
    """Yield the specs of pods in an object: of templates, of a predictor, of a Ray cluster.

    The pod of a runtime of KServe has a ``model`` in place of containers.
    """
    if isinstance(value, dict):
        if isinstance(value.get("containers"), list) or (
            "serviceAccountName" in value and "model" in value
        ):
            yield value
            return
        for each in value.values():
            yield from pods_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from pods_of(each)


def _leave_user_to_the_platform(pod: Json) -> None:
    security = pod.get("securityContext") or {}
    pod["securityContext"] = {k: v for k, v in security.items() if k not in _USER_FIELDS}


def _add_pull_secrets(pod: Json, names: tuple[str, ...]) -> None:
    own = pod.get("imagePullSecrets") or []
    there = {each["name"] for each in own}
    if wanted := [*own, *({"name": name} for name in names if name not in there)]:
        pod["imagePullSecrets"] = wanted


def _add_authorities(pod: Json, config_map: str, key: str) -> None:
    if "containers" not in pod:
        return  # KServe's own settings say what its storage initializer trusts.
    source = {"name": config_map, "items": [{"key": key, "path": _FILE}]}
    pod["volumes"] = [*(pod.get("volumes") or []), {"name": _VOLUME, "configMap": source}]
    mount = {"name": _VOLUME, "mountPath": AUTHORITIES_DIR, "readOnly": True}
    for container in (*(pod.get("initContainers") or []), *pod["containers"]):
        env = container.get("env") or []
        set_already = {each["name"] for each in env}
        container["env"] = [
            *env,
            *(
                {"name": name, "value": f"{AUTHORITIES_DIR}/{_FILE}"}
                for name in _VARIABLES
                if name not in set_already
            ),
        ]
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
