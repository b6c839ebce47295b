"""A cluster in memory: the API server as far as the operator can see it, and what can befall it.

It keeps objects with uid, resourceVersion, generation and managedFields, applies server-side,
fills in defaults, collects garbage by owner references and sends watch events. It refuses states
no API server would hold, so that no test passes on one. What befalls it is told by ``Faults``:
death of the operator before or after the Nth write, an answer other than 200, a stale read, watch
events that are lost or doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fourways_operator.cluster import MODEL_DEPLOYMENT, SCALE_MANAGER, STATUS_MANAGER
from fourways_operator.errors import Conflict, Invalid, ObjectGone
from fourways_operator.events import Event
from fourways_operator.facts import FIELD_MANAGER, Json, Kind
from fourways_operator.kinds import KINDS, OBSERVED

from . import server_side_apply as ssa
from .defaults import fill_in_defaults
from .faults import Faults, Killed

Ident = tuple[str, str, str]
"""Kind, namespace and name."""


class Impossible(AssertionError):
    """A test asked for a state that no API server would hold."""


class FakeCluster:
    """Implements ``Cluster``; ``user_*`` methods are what people and controllers do."""

    def __init__(self, *, absent: frozenset[str] = frozenset()) -> None:
        self.objects: dict[Ident, Json] = {}
        self.past: dict[Ident, Json] = {}
        self.reads_that_matter: set[int] = set()
        """Reads whose answer would have been another before the last change by hand."""
        self.faults = Faults()
        self.writes: list[str] = []
        self.changes_by_hand = 0
        self.first_writes: dict[int, int] = {}
        """The first write after each change by hand."""
        self.reads = 0
        self.events: list[Event] = []
        self.leases: dict[tuple[str, str], Json] = {}
        self.warnings: dict[tuple[str, str], str] = {}
        """Messages of controllers' Warnings, by the object's name and the reason."""
        self.listeners: list[Callable[[Json, bool], object]] = []
        self.absent = absent
        self.terminating: set[str] = set()
        self.collector_sleeps = False
        self.builds_take_time = False
        self._clock = 0
        self.sent = 0
        self._held_back: list[tuple[Json, bool]] = []

    # ------------------------------------------------------------ what the operator calls

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> tuple[Json, ...]:
        def select(state: dict[Ident, Json]) -> tuple[Json, ...]:
            found = [
                (name, obj)
                for (what, where, name), obj in state.items()
                if what == kind.kind
                and namespace in (None, where)
                and labels.items() <= obj["metadata"].get("labels", {}).items()
            ]
            return tuple(obj for _, obj in sorted(found, key=lambda item: item[0]))

        return self._read(select)

    async def has(self, kind: Kind) -> bool:
        return kind.kind not in self.absent

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        found = self._read(lambda state: (state.get((kind.kind, namespace, name)),))
        return found[0]

    async def apply(self, obj: Json, uid: str | None) -> None:
        ident = _ident(obj)
        with self._write(f"apply {ident[0]} {ident[2]}"):
            self._apply(obj, uid, FIELD_MANAGER, force=uid is not None)

    async def scale(self, deployment: Json, replicas: int) -> None:
        meta = deployment["metadata"]
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "spec": {"replicas": replicas},
        }
        with self._write(f"scale {meta['name']}"):
            self._apply(body, meta["uid"], SCALE_MANAGER, force=True)

    async def write_status(self, deployment: Json, status: Json) -> None:
        meta = deployment["metadata"]
        with self._write(f"status {meta['name']}"):
            if (live := self.objects.get(_ident(deployment))) is None:
                raise ObjectGone("no such deployment")
            _refuse_other_uid(live, meta["uid"])
            self._change(live, {"status": status}, STATUS_MANAGER, True, "status")

    async def delete(self, obj: Json) -> None:
        ident = _ident(obj)
        with self._write(f"delete {ident[0]} {ident[2]}"):
            live = self.objects.get(ident)
            if live is not None and live["metadata"]["uid"] == obj["metadata"]["uid"]:
                self._remove(ident)

    async def emit(self, deployment: Json, event: Event) -> None:
        with self._write(f"event {event.reason}"):
            self.events.append(event)

    async def last_warning(self, obj: Json, reason: str) -> str | None:
        return self.warnings.get((obj["metadata"]["name"], reason))

    async def get_lease(self, namespace: str, name: str) -> Json | None:
        return self.leases.get((namespace, name))

    async def write_lease(self, lease: Json) -> None:
        meta = lease["metadata"]
        name = meta["namespace"], meta["name"]
        with self._write(f"lease {name[0]}"):
            live = self.leases.get(name)
            if meta.get("resourceVersion") != (live and live["metadata"]["resourceVersion"]):
                raise Conflict("the Lease has changed")
            self._clock += 1
            version = str(self._clock)
            self.leases[name] = {**lease, "metadata": {**meta, "resourceVersion": version}}

    async def everywhere(self, kind: Kind, labels: Mapping[str, str]) -> tuple[Json, ...]:
        return await self.list(kind, None, labels)

    async def discover(self) -> frozenset[Kind]:
        kinds = (MODEL_DEPLOYMENT, *KINDS, *OBSERVED)
        return frozenset(kind for kind in kinds if kind.kind not in self.absent)

    # ------------------------------------------------------------ what people do

    def user_apply(self, obj: Json) -> None:
        """Apply as kubectl does."""
        self._remember()
        self._apply(obj, None, "kubectl", force=True)

    def user_delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; what it owned is collected."""
        self._remember()
        self._remove((kind, namespace, name))

    def user_unlabel(self, kind: str, namespace: str, name: str, label: str) -> None:
        """Remove a label, as ``kubectl label KIND NAME LABEL-`` does."""
        self._remember()
        live = self.objects[kind, namespace, name]
        new = ssa.copy(live)
        del new["metadata"]["labels"][label]
        owned = {
            manager: frozenset(p for p in fields if ssa.value_at(new, p) is not None)
            for manager, fields in _field_sets(live).items()
        }
        self._store(live, new, owned)

    def user_delete_namespace(self, namespace: str) -> None:
        """Delete a namespace: everything in it goes, nothing new comes in."""
        self._remember()
        self.terminating.add(namespace)
        for ident in [i for i in self.objects if i[1] == namespace]:
            self._remove(ident)

    def end_builds(self) -> None:
        """Have every Job succeed."""
        self._remember()
        for ident, obj in list(self.objects.items()):
            if ident[0] == "Job":
                self._store(obj, {**ssa.copy(obj), "status": _DONE}, _field_sets(obj))

    # ------------------------------------------------------------ how it works

    def _remember(self) -> None:
        # Objects are replaced, never changed: the old ones stay as they were.
        self.past = dict(self.objects)
        self.changes_by_hand += 1

    def _read(self, select: Callable[[dict[Ident, Json]], tuple[Any, ...]]) -> tuple[Any, ...]:
        number, self.reads = self.reads, self.reads + 1
        if (fault := self.faults.read_answers.get(number)) is not None:
            raise fault
        now, before = select(self.objects), select(self.past)
        if now != before:
            self.reads_that_matter.add(number)
        found = before if number in self.faults.stale_reads else now
        return tuple(ssa.copy(obj) if obj else None for obj in found)

    def clone(self) -> FakeCluster:
        """Return a cluster in the same state, to which nothing has happened yet."""
        other = FakeCluster(absent=self.absent)
        other.objects, other._clock = dict(self.objects), self._clock
        other.builds_take_time = self.builds_take_time
        return other

    def _write(self, what: str) -> _Write:
        return _Write(self, what)

    def _apply(self, obj: Json, uid: str | None, manager: str, *, force: bool) -> None:
        ident = _ident(obj)
        kind, namespace, _ = ident
        if kind in self.absent:
            raise ObjectGone(f"the server has no {kind}")
        if namespace in self.terminating:
            raise ObjectGone(f"namespace {namespace} is being terminated")
        live = self.objects.get(ident)
        if live is None:
            if uid is not None:
                raise Conflict(f"{ident} with uid {uid} is not there")
            live = self._born(obj)
        elif uid is not None:
            _refuse_other_uid(live, uid)
        self._change(live, obj, manager, force, None)
        self._collect_garbage()

    def _born(self, obj: Json) -> Json:
        self._clock += 1
        meta = obj["metadata"]
        return {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": f"uid-{self._clock}",
                "resourceVersion": "0",
                "generation": 0,
                "creationTimestamp": "2026-11-21T11:59:00Z",
                "managedFields": [],
            },
        }

    def _change(
        self, live: Json, applied: Json, manager: str, force: bool, subresource: str | None
    ) -> None:
        fields = ssa.fields_of(applied)
        owned = _field_sets(live)
        mine = (manager, subresource)
        new = ssa.merge(live, {k: v for k, v in applied.items() if k not in ("metadata",)})
        new["metadata"] = ssa.merge(live["metadata"], _meta(applied))
        for other, theirs in owned.items():
            contested = {p for p in theirs & fields if other != mine and _differs(live, new, p)}
            if contested and not force:
                raise Conflict(f"{sorted(contested)[0]} is owned by {other[0]}")
            owned[other] = theirs - contested
        others = frozenset().union(*(f for m, f in owned.items() if m != mine))
        unwanted = owned.get(mine, frozenset()) - fields - others - ssa.parents_of(fields)
        # An item before its fields: without its key it could not be found.
        for path in sorted(unwanted, key=len):
            ssa.remove(new, path)
        owned[mine] = fields
        fill_in_defaults(new)
        if new["kind"] == "Job" and not self.builds_take_time:
            new["status"] = _DONE
        _refuse_impossible(new)
        self._store(live, new, owned)

    def _store(
        self, live: Json, new: Json, owned: dict[tuple[str, str | None], ssa.Fields]
    ) -> None:
        api_version = new["apiVersion"]
        new["metadata"]["managedFields"] = [
            {
                "manager": manager,
                "operation": "Apply",
                "apiVersion": api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": ssa.to_fields_v1(fields),
                **({"subresource": subresource} if subresource else {}),
            }
            for (manager, subresource), fields in sorted(owned.items(), key=str)
            if fields
        ]
        ident = _ident(new)
        if new == live and ident in self.objects:
            return
        self._clock += 1
        if new.get("spec") != live.get("spec"):
            new["metadata"]["generation"] += 1
        new["metadata"]["resourceVersion"] = str(self._clock)
        self.objects[ident] = new
        self._send(new)

    def _remove(self, ident: Ident) -> None:
        gone = self.objects.pop(ident, None)
        if gone is None:
            return
        self._send(gone, gone=True)
        self._collect_garbage()

    def wake_collector(self) -> None:
        """Let the garbage collector do what it has not done while it slept."""
        self.collector_sleeps = False
        self._collect_garbage()

    def _collect_garbage(self) -> None:
        if self.collector_sleeps:
            return
        uids = {obj["metadata"]["uid"] for obj in self.objects.values()}
        for ident, obj in list(self.objects.items()):
            references = obj["metadata"].get("ownerReferences", [])
            alive = [r for r in references if r["uid"] in uids]
            if references and not alive:
                self._remove(ident)
                return
            if len(alive) < len(references):
                new = ssa.copy(obj)
                new["metadata"]["ownerReferences"] = alive
                # What is not there is nobody's any more.
                owned = {
                    manager: frozenset(p for p in fields if ssa.value_at(new, p) is not None)
                    for manager, fields in _field_sets(obj).items()
                }
                self._store(obj, new, owned)

    def _send(self, obj: Json, *, gone: bool = False) -> None:
        number, self.sent = self.sent, self.sent + 1
        faults = self.faults
        if number in faults.delayed_events:
            self._held_back.append((obj, gone))
            return
        copies = 0 if number in faults.lost_events else 2 if number in faults.doubled_events else 1
        for told, was_last in [(obj, gone)] * copies + self._held_back:
            for listener in list(self.listeners):
                listener(ssa.copy(told), was_last)
        self._held_back.clear()


_DONE = {"conditions": [{"type": "Complete", "status": "True"}]}


class _Write:
    """Counts a write, and lets befall it what is to befall it."""

    def __init__(self, cluster: FakeCluster, what: str) -> None:
        self.cluster, self.what = cluster, what
        self.number = len(cluster.writes)

    def __enter__(self) -> None:
        faults = self.cluster.faults
        if faults.kill_before == self.number:
            raise Killed
        self.cluster.writes.append(self.what)
        self.cluster.first_writes.setdefault(self.cluster.changes_by_hand, self.number)
        if (fault := faults.answers.get(self.number)) is not None:
            raise fault

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        faults = self.cluster.faults
        if kind is None and faults.kill_after == self.number:
            raise Killed
        if kind is None and (fault := faults.lost_answers.get(self.number)) is not None:
            raise fault


def _ident(obj: Json) -> Ident:
    return obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"]


def _meta(applied: Json) -> Json:
    meta = applied.get("metadata", {})
    return {k: v for k, v in meta.items() if k in ("labels", "annotations", "ownerReferences")}


def _differs(live: Json, new: Json, path: ssa.Path) -> bool:
    return bool(ssa.value_at(live, path) != ssa.value_at(new, path))


def _field_sets(live: Json) -> dict[tuple[str, str | None], ssa.Fields]:
    return {
        (entry["manager"], entry.get("subresource")): frozenset(_paths(entry["fieldsV1"], ()))
        for entry in live["metadata"]["managedFields"]
    }


def _paths(fields: Json, path: ssa.Path) -> list[ssa.Path]:
    below = [p for k, v in fields.items() if k != "." for p in _paths(v, (*path, k))]
    return below if path == () or (fields and "." not in fields) else [path, *below]


def _refuse_other_uid(live: Json, uid: str) -> None:
    if live["metadata"]["uid"] != uid:
        raise Conflict(f"{_ident(live)} has another uid than {uid}")


def _refuse_impossible(obj: Json) -> None:
    references = obj["metadata"].get("ownerReferences", [])
    if sum(bool(r.get("controller")) for r in references) > 1:
        raise Invalid(f"{_ident(obj)}: only one owner can be the controller")
    if len({r["uid"] for r in references}) < len(references):
        raise Impossible(f"{_ident(obj)}: an owner is named twice")
    if any(not r["uid"] for r in references):
        raise Invalid(f"{_ident(obj)}: an owner has no uid")
    if obj["kind"] == "ModelDeployment" and "spec" not in obj:
        raise Impossible(f"{_ident(obj)}: the CRD requires a spec")
