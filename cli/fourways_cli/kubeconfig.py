"""Log in to a cluster as kubectl does: kubeconfig, context, and the context's namespace.

This module imports the Kubernetes client, an optional dependency, so import it only where needed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client import ApiException
from kubernetes.dynamic import DynamicClient
from urllib3.exceptions import HTTPError as Unreachable

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class NoCluster(RuntimeError):
    """The kubeconfig is missing, unreadable, or has no such context; the text is for people."""


@dataclass(frozen=True, slots=True)
class ClusterLogin:
    """A client of one API server, and the default namespace of commands."""

    api: Any
    namespace: str
    name: str = ""
    """The kubeconfig's context, for people."""

    @property
    def custom_objects(self) -> Any:
        """The API of custom resources."""
        return client.CustomObjectsApi(self.api)

    @property
    def batch(self) -> Any:
        """The API of Jobs and CronJobs."""
        return client.BatchV1Api(self.api)

    @property
    def core(self) -> Any:
        """The API of pods, Secrets and ServiceAccounts."""
        return client.CoreV1Api(self.api)

    @property
    def apps(self) -> Any:
        """The API of Deployments."""
        return client.AppsV1Api(self.api)

    @property
    def request(self) -> Any:
        """A function for requests of any path: method, path, body and options."""
        # The client's discovery would cache a file in /tmp, and nothing here needs it.
        dynamic = DynamicClient(self.api, discoverer=lambda *_: None)  # type: ignore[no-untyped-call]
        return dynamic.request

    def plain(self, thing: Any) -> Any:
        """Convert an object of the client to plain data."""
        return self.api.sanitize_for_serialization(thing)


def log_in(kubeconfig: Path | None, context: str | None) -> ClusterLogin:
    """Log in with a kubeconfig; in a pod without one, as the pod's ServiceAccount.

    Raises:
        NoCluster: neither can be used.

    """
    if kubeconfig is not None and not kubeconfig.is_file():
        raise NoCluster(f"there is no kubeconfig {kubeconfig}")
    configuration = client.Configuration()
    try:
        name, namespace = _by_kubeconfig(configuration, kubeconfig, context)
    except config.ConfigException as error:
        if kubeconfig is not None or context is not None or not _POD_NAMESPACE.is_file():
            raise NoCluster(_absent() or str(error)) from None
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        name, namespace = "of this pod", _POD_NAMESPACE.read_text().strip()
    except (OSError, ValueError, TypeError, LookupError, yaml.YAMLError) as error:
        # The client reads a document of any shape as if it were a kubeconfig.
        raise NoCluster(f"the kubeconfig cannot be read: {error}") from None
    return ClusterLogin(client.ApiClient(configuration), namespace, name)


def _absent() -> str:
    """Return which kubeconfig is missing, if none is there; the client does not say."""
    named: str = config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    if any(Path(file).expanduser().is_file() for file in named.split(os.pathsep) if file):
        return ""
    return f"there is no kubeconfig {named}"


def _by_kubeconfig(configuration: Any, file: Path | None, context: str | None) -> tuple[str, str]:
    name = str(file) if file is not None else None
    load = partial(config.load_kube_config, name, client_configuration=configuration)
    load(context=context)
    contexts, active = config.list_kube_config_contexts(name)  # type: ignore[no-untyped-call]
    chosen = next((c for c in contexts if c["name"] == context), active) if context else active
    namespace = (chosen.get("context") or {}).get("namespace") or "default"
    return str(chosen["name"]), str(namespace)


__all__ = ["ApiException", "ClusterLogin", "NoCluster", "Unreachable", "log_in"]
