"""The real-time mode: a KServe InferenceService whose container is our model server.

KServe (Standard mode) creates the Deployment, its Service and, if replicas may vary, its
HorizontalPodAutoscaler. It copies the labels of the InferenceService to all of them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fourways_api import ModelDeployment, Route, ServerConfig, WakeConfig
from fourways_api.callers import TLS_DIR
from fourways_api.modes import Realtime
from fourways_api.runtime_config import ServerTls, StoredAnswers
from fourways_api.values import seconds

from ..facts import Json, Kind, OperatorSettings
from ..kinds import SCALED_OBJECT
from . import network, parts, quality, serving_runtime, worker

CONTAINER = "kserve-container"
"""KServe's name of a predictor's container, whatever name it is given."""


def name_of(deployment: str) -> str:
    """Return the name of a real-time deployment's InferenceService."""
    return worker.name_of(deployment, "realtime")


def predictor_of(deployment: str) -> str:
    """Return the name of the Deployment and the Service that KServe creates."""
    return f"{name_of(deployment)}-predictor"


def host_of(service: str, namespace: str) -> str:
    """Return the name that a model server's certificate is for.

    ``service`` is the name of its InferenceService. The cluster's domain is left out.
    """
    return f"{service}-predictor.{namespace}.svc"


def has_tls_port(owner: Json) -> bool:
    """Tell whether a pod's or a predictor's spec has the port that answers with a certificate."""
    ports = (port for each in owner.get("containers") or () for port in each.get("ports") or ())
    return any(port.get("name") == TLS_PORT_NAME for port in ports)


def conventional_url(namespace: str, deployment: str) -> str:
    """Return the address KServe will publish for the model server."""
    return f"http://{predictor_of(deployment)}.{namespace}.svc.cluster.local"


MODEL_SERVER_PORTS = frozenset({80, worker.PORT})
"""Ports of KServe's Service and of the pods behind it: policies see both."""

TLS_PORT = 8443
"""Port of model servers with a certificate. KServe's Service has it under the same number."""

TLS_PORT_NAME = "https"
DEPLOYMENT_IN_NAME = "{deployment}"
"""In the name of the certificate's Secret, stands for the deployment's."""


def route(deployment: ModelDeployment, url: str | None) -> Route | None:
    """Return the gateway's route; ``url`` is the address that KServe has published."""
    realtime = deployment.spec.realtime
    if realtime is None:
        return None
    namespace, name = deployment.key
    return Route(
        deployment=name,
        mode="realtime",
        version=deployment.spec.model.version,
        url=url or conventional_url(namespace, name),
        timeout_seconds=seconds(realtime.timeout),
        max_body_bytes=realtime.limits.body_mi_b * 2**20,
        max_answer_bytes=realtime.limits.answer_mi_b * 2**20,
        model_name=model_name(deployment),
        wake=_wake(realtime),
        entity_key=deployment.spec.contract.entity_key,
    )


def model_name(deployment: ModelDeployment) -> str | None:
    """Return the model's name in the paths of a runtime of KServe; None if ours serves it."""
    realtime = deployment.spec.realtime
    if realtime is None or realtime.runtime is None:
        return None
    return realtime.runtime.model_name or name_of(deployment.metadata.name)


def _wake(realtime: Realtime) -> WakeConfig | None:
    if realtime.min_replicas > 0:
        return None
    return WakeConfig(
        idle_seconds=seconds(realtime.scale_to_zero_after),
        timeout_seconds=seconds(realtime.wake_timeout),
        stored=realtime.fallback == "stored",
    )


def route_ports(route: Route) -> set[int]:
    """Return the ports the gateway connects to; the feature database uses the store's."""
    if route.url and urlsplit(route.url).port == TLS_PORT:
        return {TLS_PORT}
    return set(MODEL_SERVER_PORTS)


def replicas(realtime: Realtime) -> tuple[int, int]:
    """Return the minimum and maximum number of replicas."""
    return realtime.min_replicas, max(1, realtime.min_replicas, realtime.max_replicas)


def _autoscaler(realtime: Realtime) -> str:
    """Return who sets the number of replicas, in KServe's words.

    From none to one and back, the operator does: for a Deployment without replicas,
    HorizontalPodAutoscalers do nothing, and KServe itself would set ``minReplicas`` again.
    """
    least, most = replicas(realtime)
    if most > max(1, least):
        return "keda" if realtime.target_concurrency else "hpa"
    return "external" if least == 0 else "none"


def later_kinds(deployment: ModelDeployment) -> tuple[Kind, ...]:
    """Return the kinds that KServe makes objects of for it, besides its usual ones."""
    realtime = deployment.spec.realtime
    return (SCALED_OBJECT,) if realtime and _autoscaler(realtime) == "keda" else ()


def plan(
    deployment: ModelDeployment, settings: OperatorSettings, pinned_digest: str | None
) -> tuple[Json, ...]:
    """Return ServiceAccount, NetworkPolicy, InferenceService, and the objects that the spec adds: a
    disruption budget, a quality worker."""
    realtime = deployment.spec.realtime
    assert realtime is not None  # noqa: S101  (Spec's rule: mode realtime has its block)
    who = worker.Identity(deployment, "realtime")
    ports = {*settings.egress_ports, *parts.ports_of(worker.model_uris(deployment))}
    if realtime.features or deployment.spec.quality:
        ports.add(settings.store_port)
    least, most = replicas(realtime)
    tls = _tls(deployment, settings)
    objects = [
        who.service_account(),
        network.network_policy(
            who.meta(),
            who.labels,
            settings,
            egress_ports=ports,
            ingress=_ingress(tls, settings),
        ),
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                **who.meta(),
                "annotations": {
                    "serving.kserve.io/deploymentMode": "Standard",
                    "serving.kserve.io/autoscalerClass": _autoscaler(realtime),
                },
            },
            "spec": {
                "predictor": {
                    "minReplicas": least,
                    "maxReplicas": most,
                    **_autoscaling(deployment, realtime, settings.prometheus_url),
                    **who.pod_meta(),
                    "deploymentStrategy": parts.WITHOUT_DOWNTIME,
                    **(
                        serving_runtime.predictor(deployment, realtime.runtime, who)
                        if realtime.runtime
                        else _pod(deployment, realtime, settings, pinned_digest, who, tls)
                    ),
                }
            },
        },
    ]
    if least > 1:
        objects.append(parts.disruption_budget(who.meta(), who.labels))
    return (*objects, *quality.plan(deployment, settings))


def _tls(deployment: ModelDeployment, settings: OperatorSettings) -> ServerTls | None:
    """Return the certificate of a model server of ours; None if gateways ask it without one."""
    realtime = deployment.spec.realtime
    if not settings.server_tls_secret or (realtime and realtime.runtime):
        return None
    namespace, name = deployment.key
    return ServerTls(
        secret=settings.server_tls_secret.replace(DEPLOYMENT_IN_NAME, name),
        authority_secret=settings.servers_authority,
        host=host_of(name_of(name), namespace),
        port=TLS_PORT,
    )


def _ingress(
    tls: ServerTls | None, settings: OperatorSettings
) -> list[tuple[tuple[int, ...], list[Json]]]:
    """Return who may connect to which port of a model server."""
    askers = network.callers_of_workers(settings)
    if tls is None:
        return [((worker.PORT,), [*network.gateways(), *askers])]
    return [((tls.port,), network.gateways()), ((worker.PORT,), askers)]


def _autoscaling(deployment: ModelDeployment, realtime: Realtime, prometheus: str) -> Json:
    match _autoscaler(realtime):
        case "hpa":
            # KServe makes a HorizontalPodAutoscaler of these. In Standard mode it knows cpu and
            # memory.
            return {"scaleMetric": "cpu", "scaleTarget": realtime.target_cpu_percent}
        case "keda":
            # KServe makes a ScaledObject of this: KEDA divides the sum by the target.
            metric = {
                "backend": "prometheus",
                "serverAddress": prometheus,
                "query": _requests_of(deployment),
            }
            target = {"type": "Value", "value": str(realtime.target_concurrency)}
            external = {"metric": metric, "target": target}
            return {"autoScaling": {"metrics": [{"type": "External", "external": external}]}}
    return {}


def _requests_of(deployment: ModelDeployment) -> str:
    """Return the query for the requests that a namespace's gateways have under way."""
    namespace, name = deployment.key
    return f'sum(fourways_requests_in_flight{{namespace="{namespace}",deployment="{name}"}})'


def _pod(
    deployment: ModelDeployment,
    realtime: Realtime,
    settings: OperatorSettings,
    pinned_digest: str | None,
    who: worker.Identity,
    tls: ServerTls | None,
) -> Json:
    mounts = parts.Mounts()
    compared: Json = {}
    if (declared := deployment.spec.quality) is not None:
        # Only then: what holds this Secret may write predictions.
        mounts.store(settings)
        stored = StoredAnswers(output=declared.output, share=declared.share)
        compared = {"stored": stored, "uid": deployment.metadata.data_uid}
    database = realtime.features.database if realtime.features else None
    mounts.secrets(worker.secrets(deployment, database))
    mounts.claims(worker.model_uris(deployment))
    mounts.model(deployment.spec.model)
    mounts.cache(deployment.spec.model.max_size_mi_b + 256)
    if tls is not None:
        # Optional, so that the server can report what is missing; the pod would not start.
        mounts.secret("tls", tls.secret, TLS_DIR)
        mounts.servers_authority(settings)
    config = worker.config(
        ServerConfig,
        deployment,
        settings,
        pinned_digest,
        port=worker.PORT,
        tls=tls,
        features=realtime.features,
        timeout_seconds=seconds(realtime.timeout),
        max_body_bytes=realtime.limits.body_mi_b * 2**20,
        max_batch_rows=realtime.limits.rows,
        access_log=settings.access_log or None,
        **compared,
    )
    container = worker.container(
        deployment,
        settings,
        name=CONTAINER,
        args=["serve"],
        env=[worker.variable(config), *worker.tracing_variables(settings, config.namespace)],
        mounts=mounts,
    )
    container |= parts.served(worker.PORT, ready="/v2/health/ready", every=1)
    if tls is not None:
        # After the first port, which KServe's Service has as its port 80.
        container["ports"].append(
            {"name": TLS_PORT_NAME, "containerPort": tls.port, "protocol": "TCP"}
        )
    return worker.serving_pod(who, container, mounts)
