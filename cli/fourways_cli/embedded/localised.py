"""A deployment as this host runs it: with the host's broker, and at most one replica. Pure."""

from __future__ import annotations

from fourways_api import ModelDeployment, SecretReference, Streaming


def localised(
    deployment: ModelDeployment, nats: str | None, secret: str | None = None
) -> ModelDeployment:
    """Return the deployment to plan on this host.

    ``nats`` is the address of a NATS server that replaces the manifest's, and ``secret`` the name
    of the Secret with its login; with None as the address, sources stay unchanged.
    """
    spec = deployment.spec
    one = {"min_replicas": 1, "max_replicas": 1}
    realtime = spec.realtime
    if realtime is not None:
        least = min(1, realtime.min_replicas)
        realtime = realtime.model_copy(update={"min_replicas": least, "max_replicas": 1})
    settings = {
        "realtime": realtime,
        "streaming": _streaming(spec.streaming, nats, secret).model_copy(update=one)
        if spec.streaming
        else None,
    }
    return deployment.model_copy(update={"spec": spec.model_copy(update=settings)})


def _streaming(streaming: Streaming, nats: str | None, secret: str | None) -> Streaming:
    if nats is None or streaming.source.nats is None:
        return streaming
    login = None if secret is None else SecretReference(secret_name=secret)
    nats_source = streaming.source.nats.model_copy(update={"servers": nats, "credentials": login})
    source = streaming.source.model_copy(update={"nats": nats_source})
    return streaming.model_copy(update={"source": source})
