"""Compares the rights that the operator has with those that it used, by an API server's audit log.

``make test`` calls it after the cluster suite, on a cluster whose audit log is on this machine. The
operator must use no right that it is not granted, and no request of it may be denied. Rights that
it is granted and did not use are in ``UNSEEN``, each with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from fourways_operator.kinds import KINDS
from fourways_operator.kubernetes_cluster import GRANTS

Right = tuple[str, str, str]
"""API group, resource (with its subresource) and verb."""

ACCOUNT = "fourways-operator"
"""The operator's ServiceAccount where the release is named fourways."""

_BINDINGS = frozenset({"roles", "rolebindings", "clusterroles", "clusterrolebindings"})
_OPEN_TO_ALL = frozenset({"authorization.k8s.io", "authentication.k8s.io"})
"""Groups in which every account may ask what it may do, and who it is."""

UNSEEN: dict[Right, str] = {
    **{
        (k.group, k.plural, "create"): "needed to apply a new object; logged as patch"
        for k in KINDS
    },
    **{
        (k.group, k.plural, "delete"): "used when a spec no longer asks for the object"
        for k in KINDS
    },
    ("", "events", "list"): "used when a Job has no pods: only its events say why",
    **{
        (
            "policy",
            "poddisruptionbudgets",
            verb,
        ): "used for several replicas, beyond the suite's room"
        for verb in ("get", "patch")
    },
}
"""Rights that the cluster suite may leave unused, with the reason why the operator has them."""


@dataclass(slots=True)
class Used:
    """What the operator asked of the API server: rights that it used, requests denied."""

    allowed: set[Right] = field(default_factory=set)
    denied: set[Right] = field(default_factory=set)


def granted() -> set[Right]:
    """Return the rights of the operator's Role."""
    return {(g.group, g.resource, verb) for g in GRANTS for verb in g.verbs}


def used(events: Iterable[dict[str, Any]]) -> Used:
    """Return what the operator used, from audit events in their order.

    A request that is denied after the Role, its binding or the namespace was deleted does not
    count: the operator is being uninstalled.
    """
    found = Used()
    leaving: set[str] = set()
    for event in events:
        target = event.get("objectRef") or {}
        account = event["user"]["username"].split(":")
        if account[:2] == ["system", "serviceaccount"] and account[3:] == [ACCOUNT]:
            group = target.get("apiGroup", "")
            if not target or group in _OPEN_TO_ALL:
                continue
            resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
            if event.get("annotations", {}).get("authorization.k8s.io/decision") != "forbid":
                found.allowed.add((group, resource, event["verb"]))
            elif not leaving & {account[2], target.get("namespace", "")}:
                found.denied.add((group, resource, event["verb"]))
        elif target.get("resource") in _BINDINGS | {"namespaces"}:
            _note(leaving, event["verb"], target)
    return found


def _note(leaving: set[str], verb: str, target: dict[str, Any]) -> None:
    """Note the namespace whose rights are taken away, or given again."""
    # A ClusterRole of a release is named NAMESPACE-RELEASE-operator.
    name = target.get("name", "").removesuffix(f"-{ACCOUNT}")
    namespace = target.get("namespace") or name
    if verb in ("delete", "deletecollection"):
        leaving.add(namespace)
    elif verb == "create":
        leaving.discard(namespace)


def faults(given: set[Right], asked: Used, *, whole: bool) -> list[str]:
    """Return a line for each difference between the rights given and used.

    ``whole`` says that everything ran which uses rights, so that one left over is a fault too.
    """
    if not asked.allowed:
        return [f"rights: the audit log has no request of {ACCOUNT}"]
    lines = [
        *(f"rights: denied to the operator: {_text(r)}" for r in sorted(asked.denied)),
        *(
            f"rights: used, and not granted by GRANTS: {_text(r)}"
            for r in sorted(asked.allowed - given)
        ),
    ]
    if whole:
        lines += [
            f"rights: granted, never used, and without a reason in UNSEEN: {_text(r)}"
            for r in sorted(given - asked.allowed - UNSEEN.keys())
        ]
    return lines


def _text(right: Right) -> str:
    group, resource, verb = right
    return f"{verb} {resource}{'.' if group else ''}{group}"


def read(folder: Path, since: str) -> Iterator[dict[str, Any]]:
    """Yield the finished requests in a folder's audit logs, the oldest file first.

    Args:
        folder: has ``audit.log`` and the files that it was rotated into.
        since: requests that came earlier are left out; RFC 3339 in UTC.
    """
    # A rotated file is named audit-TIME.log, which sorts before audit.log.
    for path in sorted(folder.glob("audit*.log")):
        with path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # it is being written
                event = orjson.loads(line)
                if event["requestReceivedTimestamp"] >= since:
                    yield event
