"""What the cluster's roles view, edit and admin mean for ModelDeployments, and the chart's own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
import yaml

from tests.kit.waiting import until
from tools.installation import CHART, Cluster

pytestmark = pytest.mark.cluster

NAMESPACE = f"fw-test-roles-{uuid4().hex[:6]}"
OWN = f"{NAMESPACE}-fourways"
"""Prefix of the chart's roles: namespace and name of the release."""

READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
MEANING = {
    "view": (("modeldeployments", READ), ("modeldeployments/status", READ)),
    "edit": (("modeldeployments", READ + WRITE), ("modeldeployments/status", READ)),
    "admin": (("modeldeployments", READ + WRITE), ("modeldeployments/status", READ)),
    f"{OWN}-view": (("modeldeployments", READ), ("modeldeployments/status", READ)),
    f"{OWN}-edit": (("modeldeployments", WRITE), ("modeldeployments/status", ())),
}


@pytest.fixture(scope="module")
def roles(cluster: Cluster) -> Iterator[Cluster]:
    made = cluster.helm(
        "template", "fourways", str(CHART), "-n", NAMESPACE, "-s", "templates/user-roles.yaml"
    )
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": NAMESPACE},
            "subjects": [
                {"kind": "User", "name": user(role), "apiGroup": "rbac.authorization.k8s.io"}
            ],
            "roleRef": {
                "kind": "ClusterRole",
                "name": role,
                "apiGroup": "rbac.authorization.k8s.io",
            },
        }
        for role in MEANING
    ]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    given = f"{made}\n---\n{yaml.safe_dump_all([namespace, *bindings])}"
    cluster.kubectl("apply", "-f", "-", stdin=given)
    # A controller adds them to the cluster's own roles.
    until(
        lambda: can(cluster, "admin", "create", "modeldeployments"), "it is aggregated", seconds=60
    )
    yield cluster
    cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=given)


def user(role: str) -> str:
    return f"somebody-{role}"


def can(cluster: Cluster, role: str, verb: str, resource: str) -> bool:
    kind, _, sub = resource.partition("/")
    group = f"{kind}.fourways.dev" if kind == "modeldeployments" else kind
    options = ("--subresource", sub) if sub else ()
    try:
        said = cluster.kubectl(
            "-n", NAMESPACE, "auth", "can-i", verb, group, *options, "--as", user(role)
        )
    except RuntimeError:
        return False  # it says no, and exits with 1
    return said.strip() == "yes"


@pytest.mark.parametrize("role", MEANING)
def test_a_role_allows_this_and_no_more(roles: Cluster, role: str) -> None:
    for resource, verbs in MEANING[role]:
        found = {verb for verb in READ + WRITE if can(roles, role, verb, resource)}
        assert found == set(verbs), resource


def test_an_author_without_edit_reads_no_secret_and_starts_no_pod(roles: Cluster) -> None:
    for role in (f"{OWN}-view", f"{OWN}-edit", "view"):
        assert not can(roles, role, "get", "secrets")
        assert not can(roles, role, "create", "pods")
    # Why `edit` is more than the right to write deployments: it mounts any Secret.
    assert can(roles, "edit", "get", "secrets")
    assert can(roles, "edit", "create", "pods")
