"""Map a watch event to the keys that must be reconciled because of it.

It maps an object to the deployments whose status or children depend on it: the inverse of what
``reconcile`` observes. It may drop only events that bring nothing new: it remembers the part of an
object that a reconcile reads, and drops events that leave that part unchanged. Otherwise each
status that the operator writes would cause another reconcile, and each new deployment would cause
one of every other deployment in its namespace, since all of them own the one gateway. It is safe to
forget everything or to miss an event: the relist adds all keys anyway.
"""

from __future__ import annotations

from fourways_api import KIND

from .facts import Json
from .kinds import DEPLOYMENT, POD
from .modes import MODES
from .plan.parts import COMPONENT_LABEL, DEPLOYMENT_LABEL, MANAGED_BY, MANAGER, MODE_LABEL
from .plan.routes import config_of
from .pods import is_ready, server_failure_of
from .work_queue import Key

Snapshot = tuple[object, ...]
Routes = dict[str, str]
"""The routes in a gateway pod's configuration, as JSON, by deployment."""


class EventFilter:
    """Remembers the last state of deployments, gateways, and what gateways depend on."""

    def __init__(self) -> None:
        self._views: dict[str, Snapshot] = {}
        self._gateway_owners: dict[str, tuple[Key, ...]] = {}
        self._gateway_pods: dict[str, dict[str, Routes]] = {}

    def keys_of(self, obj: Json, *, gone: bool) -> tuple[Key, ...]:
        """Return the keys that an observed object affects; ``gone`` if it was deleted."""
        meta = obj["metadata"]
        namespace, labels = meta.get("namespace", ""), meta.get("labels") or {}
        if obj["kind"] == KIND:
            keys = (Key(namespace, meta["name"]), Key(namespace))
            return keys if self._is_new(obj, gone, _view_of_deployment(obj)) else ()
        if labels.get(MANAGED_BY) != MANAGER:
            return ()
        if name := labels.get(DEPLOYMENT_LABEL):
            return (Key(namespace, name), *self._gateway_of(obj, namespace, gone))
        if labels.get(COMPONENT_LABEL):
            return self._keys_of_gateway(obj, namespace, gone)
        return ()

    def _gateway_of(self, child: Json, namespace: str, gone: bool) -> tuple[Key, ...]:
        """Return the gateway's key if a change of this child may change a route."""
        record = MODES.get(child["metadata"]["labels"].get(MODE_LABEL))
        view = record.route_depends_on.get(child["kind"]) if record else None
        if view is None:
            return ()
        return (Key(namespace),) if self._is_new(child, gone, (view(child),)) else ()

    def _keys_of_gateway(self, obj: Json, namespace: str, gone: bool) -> tuple[Key, ...]:
        """Return the affected keys: owners depend on the gateway's availability and routes."""
        if obj["kind"] == POD.kind:
            return self._keys_of_gateway_pod(obj, namespace, gone)
        if obj["kind"] != DEPLOYMENT.kind:
            return (Key(namespace),)
        references = obj["metadata"].get("ownerReferences", [])
        owners = tuple(Key(namespace, r["name"]) for r in references if r["kind"] == KIND)
        self._gateway_owners[namespace] = owners
        available = obj.get("status", {}).get("availableReplicas", 0) > 0
        return (Key(namespace), *(owners if self._is_new(obj, gone, (available,)) else ()))

    def _keys_of_gateway_pod(self, pod: Json, namespace: str, gone: bool) -> tuple[Key, ...]:
        """Return all owners if the pod starts to fail or recovers; else those with new routes."""
        owners = self._gateway_owners.get(namespace, ())
        pods = self._gateway_pods.setdefault(namespace, {})
        before = list(pods.values())
        if is_ready(pod) and not gone:
            pods[pod["metadata"]["uid"]] = _routes_of(pod)
        else:
            pods.pop(pod["metadata"]["uid"], None)
        now = list(pods.values())
        if self._failure_changed(pod, gone):
            return owners
        return tuple(k for k in owners if _known(before, k.name) != _known(now, k.name))

    def _failure_changed(self, pod: Json, gone: bool) -> bool:
        failure = None if gone else server_failure_of(pod)
        view = (failure.reason if failure else None,)
        before = self._views.get(pod["metadata"]["uid"], (None,))
        self._is_new(pod, gone, view)
        return view != before

    def _is_new(self, obj: Json, gone: bool, view: Snapshot) -> bool:
        uid = obj["metadata"]["uid"]
        if gone:
            self._views.pop(uid, None)
            return True
        if self._views.get(uid) == view:
            return False
        self._views[uid] = view
        return True


def _view_of_deployment(obj: Json) -> Snapshot:
    """Return what plans depend on: not the status, which the operator writes itself."""
    meta = obj["metadata"]
    return (meta.get("generation"), meta.get("deletionTimestamp"))


def _routes_of(pod: Json) -> Routes:
    config = config_of(pod)
    if config is None:
        return {}
    # Who may sleep is asked about at each pod: another pod has another address.
    address = pod.get("status", {}).get("podIP")
    routes = {
        r.deployment: f"{r.model_dump_json()} {address if r.wake else ''}" for r in config.routes
    }
    names = routes.keys() | (config.owners or {})
    return {name: f"{(config.owners or {}).get(name)} {routes.get(name)}" for name in names}


def _known(pods: list[Routes], name: str) -> set[str | None]:
    return {routes.get(name) for routes in pods}
