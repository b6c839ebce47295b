"""How the operator reads: around what is missing, by field selectors, and Leases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from fourways_operator.cluster import MODEL_DEPLOYMENT
from fourways_operator.errors import Conflict, Forbidden, ServerError
from fourways_operator.facts import Json
from fourways_operator.kubernetes_cluster import KubernetesCluster

GROUP = "/apis/fourways.dev/v1alpha1"


class Server:
    """Answers requests by path: with a document, or with a status code that is no success."""

    def __init__(self, answers: dict[str, Json | int]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def request(self, method: str, path: str, **parameters: Any) -> Json:
        self.asked.append(path)
        self.last = (method, path, parameters)
        answer = self.answers.get(path, 404)
        if isinstance(answer, int):
            body = json.dumps({"message": f"HTTP {answer}"})
            raise ApiException(status=answer, body=body)
        return answer


KINDS: Json = {"resources": [{"name": "modeldeployments"}]}
NO_KINDS: Json = {"resources": []}


def of(*names: str) -> Json:
    return {"items": [{"metadata": {"name": name}} for name in names], "metadata": {}}


def path(namespace: str) -> str:
    return f"{GROUP}/namespaces/{namespace}/modeldeployments"


def names(server: Server, *namespaces: str) -> list[str]:
    cluster = KubernetesCluster(server, namespaces)
    try:
        found = asyncio.run(cluster.everywhere(MODEL_DEPLOYMENT, {}))
    finally:
        cluster.close()
    return [obj["metadata"]["name"] for obj in found]


@pytest.mark.parametrize("missing", [403, 404])
def test_a_namespace_that_is_gone_leaves_the_others(missing: int) -> None:
    answers = {GROUP: KINDS, path("a"): of("x", "y"), path("b"): missing, path("c"): of("z")}
    assert names(Server(answers), "a", "b", "c") == ["x", "y", "z"]


def test_where_every_namespace_is_refused_that_is_a_fault() -> None:
    server = Server({GROUP: KINDS, path("a"): 403, path("b"): 403})
    with pytest.raises(Forbidden):
        names(server, "a", "b")


def test_a_server_that_fails_is_not_taken_for_a_namespace_that_is_gone() -> None:
    server = Server({GROUP: KINDS, path("a"): of("x"), path("b"): 500})
    with pytest.raises(ServerError):
        names(server, "a", "b")


def test_that_the_crd_was_missing_is_not_remembered() -> None:
    server = Server({GROUP: NO_KINDS, path("a"): of("x")})
    cluster = KubernetesCluster(server, ("a",))

    async def read() -> int:
        return len(await cluster.list(MODEL_DEPLOYMENT, "a", {}))

    async def play() -> None:
        assert await read() == 0
        server.answers[GROUP] = KINDS
        assert await read() == 1
        before = server.asked.count(GROUP)
        assert await read() == 1
        assert server.asked.count(GROUP) == before, "that it exists is remembered"

    asyncio.run(play())
    cluster.close()


def test_the_last_warning_of_an_object_is_listed_by_its_uid() -> None:
    path = "/api/v1/namespaces/a/events"
    items = [
        {"message": "second", "lastTimestamp": "2026-03-01T03:00:02Z"},
        {"message": "first", "lastTimestamp": "2026-03-01T03:00:01Z"},
        {"message": "no time"},
    ]
    server = Server({path: {"items": items, "metadata": {}}})
    cluster = KubernetesCluster(server, ("a",))
    job = {"metadata": {"namespace": "a", "name": "m-1", "uid": "u-1"}}
    assert asyncio.run(cluster.last_warning(job, "FailedCreate")) == "second"
    selector = "involvedObject.uid=u-1,type=Warning,reason=FailedCreate"
    assert server.last[2]["field_selector"] == selector
    server.answers[path] = {"items": [], "metadata": {}}
    assert asyncio.run(cluster.last_warning(job, "FailedCreate")) is None
    cluster.close()


def test_a_lease_is_created_and_replaced_by_its_version() -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/a/leases"
    server = Server({leases: {}, f"{leases}/l": {}})
    cluster = KubernetesCluster(server, ("a",))
    lease: Json = {"metadata": {"namespace": "a", "name": "l"}, "spec": {}}
    asyncio.run(cluster.write_lease(lease))
    assert server.last[:2] == ("post", leases)
    lease["metadata"]["resourceVersion"] = "7"
    asyncio.run(cluster.write_lease(lease))
    assert server.last[:2] == ("put", f"{leases}/l")
    server.answers[f"{leases}/l"] = 409
    with pytest.raises(Conflict):
        asyncio.run(cluster.write_lease(lease))
    cluster.close()
