"""The operator's rights against an audit log: used, denied, and left over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.used_rights import UNSEEN, Right, Used, faults, granted, read, used

JOBS: Right = ("batch", "jobs", "list")
OPERATOR = "system:serviceaccount:shop:fourways-operator"


def event(
    verb: str,
    resource: str,
    *,
    user: str = OPERATOR,
    decision: str = "allow",
    at: str = "2026-12-01T12:00:00.000000Z",
    **target: str,
) -> dict[str, Any]:
    return {
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, "namespace": "shop", **target},
        "annotations": {"authorization.k8s.io/decision": decision},
        "requestReceivedTimestamp": at,
    }


DENIED = event("list", "secrets", decision="forbid")


def test_what_the_operator_used_is_a_group_a_resource_and_a_verb() -> None:
    asked = used(
        [
            event("list", "jobs", apiGroup="batch"),
            event("patch", "modeldeployments", apiGroup="fourways.dev", subresource="status"),
            event("list", "secrets", user="system:serviceaccount:other:kuberay-operator"),
            event("create", "selfsubjectaccessreviews", apiGroup="authorization.k8s.io"),
            {**event("get", ""), "objectRef": None},
            DENIED,
        ]
    )
    assert asked == Used(
        {JOBS, ("fourways.dev", "modeldeployments/status", "patch")}, {("", "secrets", "list")}
    )


@pytest.mark.parametrize(
    ("verb", "resource", "target"),
    [
        ("delete", "rolebindings", {"name": "fourways-operator"}),
        ("deletecollection", "roles", {}),
        ("delete", "namespaces", {"name": "shop"}),
        ("delete", "clusterroles", {"namespace": "", "name": "shop-fourways-operator"}),
    ],
)
def test_what_is_denied_after_an_uninstall_does_not_count(
    verb: str, resource: str, target: dict[str, str]
) -> None:
    ended = event(verb, resource, user="admin", **target)
    again = event("create", resource, user="admin", **target)
    elsewhere = {**ended, "objectRef": {"resource": "roles", "namespace": "other"}}
    assert not used([ended, DENIED]).denied
    assert used([ended, again, DENIED]).denied
    assert used([elsewhere, DENIED]).denied


def test_each_difference_is_a_line() -> None:
    asked = Used({JOBS, ("", "secrets", "get")}, {("apps", "deployments", "update")})
    given = {JOBS, ("batch", "jobs", "watch"), ("", "events", "list")}
    always = [
        "rights: denied to the operator: update deployments.apps",
        "rights: used, and not granted by GRANTS: get secrets",
    ]
    left = "rights: granted, never used, and without a reason in UNSEEN: watch jobs.batch"
    assert faults(given, asked, whole=False) == always
    assert faults(given, asked, whole=True) == [*always, left]


def test_a_log_without_the_operator_is_a_fault() -> None:
    assert faults(granted(), Used(), whole=False) == [
        "rights: the audit log has no request of fourways-operator"
    ]


def test_what_may_stay_unused_is_granted() -> None:
    assert UNSEEN.keys() <= granted()


def test_rotated_logs_are_read_first_and_old_requests_left_out(tmp_path: Path) -> None:
    def line(second: int) -> str:
        return json.dumps(event("get", "leases", at=f"2026-12-01T12:00:0{second}.000000Z")) + "\n"

    (tmp_path / "audit-2026-12-01T12-00-02.000.log").write_text(line(1) + line(2))
    (tmp_path / "audit.log").write_text(line(3) + line(4)[:40])
    (tmp_path / "kubelet.log").write_text("no JSON\n")
    times = [e["requestReceivedTimestamp"] for e in read(tmp_path, "2026-12-01T12:00:02.000000Z")]
    assert [time[18] for time in times] == ["2", "3"]
