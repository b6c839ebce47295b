"""Which keys something seen of an object concerns.

It owns the way from an object back to the deployments whose status or children depend on it, the
inverse of what ``reconcile`` observes. It may only ever leave out work that would find nothing
new: it remembers the part of an object that anyone looks at, and says nothing while that part
stays the same. Without that, each status the operator writes would set it to work again, and
each new deployment would set every other one of its namespace to work, because all of them own
the one gateway. Forgetting everything is safe, and so is missing an event: the relist asks for
all keys anyway.
"""

from __future__ import annotations

from fourways_api import KIND

from .facts import Json
from .plan import COMPONENT_LABEL, DEPLOYMENT, DEPLOYMENT_LABEL, MANAGED_BY, MANAGER, POD
from .runs import trouble_of
from .work_queue import Key

View = tuple[object, ...]


class Sight:
    """Remembers what was seen last of deployments and gateways."""

    def __init__(self) -> None:
        self._views: dict[str, View] = {}
        self._gateway_owners: dict[str, tuple[Key, ...]] = {}

    def keys_of(self, obj: Json, *, gone: bool) -> tuple[Key, ...]:
        """Return the keys that a sight of an object concerns; ``gone`` when it was the last."""
        meta = obj["metadata"]
        namespace, labels = meta.get("namespace", ""), meta.get("labels") or {}
        if obj["kind"] == KIND:
            keys = (Key(namespace, meta["name"]), Key(namespace))
            return keys if self._is_new(obj, gone, _view_of_deployment(obj)) else ()
        if labels.get(MANAGED_BY) != MANAGER:
            return ()
        if name := labels.get(DEPLOYMENT_LABEL):
            return (Key(namespace, name),)
        if labels.get(COMPONENT_LABEL):
            return self._keys_of_gateway(obj, namespace, gone)
        return ()

    def _keys_of_gateway(self, obj: Json, namespace: str, gone: bool) -> tuple[Key, ...]:
        """A gateway's deployments look at whether it answers, and at what ails its pods."""
        if obj["kind"] == POD.kind:
            return self._gateway_owners.get(namespace, ()) if self._ails_anew(obj, gone) else ()
        if obj["kind"] != DEPLOYMENT.kind:
            return (Key(namespace),)
        references = obj["metadata"].get("ownerReferences", [])
        owners = tuple(Key(namespace, r["name"]) for r in references if r["kind"] == KIND)
        self._gateway_owners[namespace] = owners
        available = obj.get("status", {}).get("availableReplicas", 0) > 0
        return (Key(namespace), *(owners if self._is_new(obj, gone, (available,)) else ()))

    def _ails_anew(self, pod: Json, gone: bool) -> bool:
        trouble = None if gone else trouble_of(pod)
        return self._is_new(pod, gone, (trouble.reason if trouble else None,))

    def _is_new(self, obj: Json, gone: bool, view: View) -> bool:
        uid = obj["metadata"]["uid"]
        if gone:
            self._views.pop(uid, None)
            return True
        if self._views.get(uid) == view:
            return False
        self._views[uid] = view
        return True


def _view_of_deployment(obj: Json) -> View:
    """Status is the operator's own, and labels and annotations plan nothing."""
    meta = obj["metadata"]
    return (meta.get("generation"), meta.get("deletionTimestamp"))
