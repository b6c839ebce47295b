"""The operator and access to gateways: policy, mounts, ports, and the cluster's keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fourways_api import GatewayConfig
from fourways_api.callers import ClusterIssuer, GatewayAccess, ServiceAccountGrant, TokenIssuer
from fourways_operator.cluster_issuer import (
    CONFIGURATION,
    KEYS,
    ClusterIssuerWatch,
    read_cluster_issuer,
)
from fourways_operator.errors import ApiUnreachable
from fourways_operator.facts import Json, OperatorSettings
from fourways_operator.options import options_of, settings_of
from fourways_operator.plan import gateway
from fourways_operator.pods import config_text

CLUSTER = ClusterIssuer(issuer="https://cluster", jwks={"keys": [{"kid": "a"}]})
OPEN = OperatorSettings(runtime_image="runtime:1")
GUARDED = replace(
    OPEN,
    access=GatewayAccess(),
    cluster_issuer=CLUSTER,
    subject="system:serviceaccount:fourways:fourways-operator",
)


def planned(settings: OperatorSettings) -> dict[str, Json]:
    owner = {"metadata": {"name": "churn", "uid": "u1"}}
    return {o["kind"]: o for o in gateway.plan("shop", [owner], settings, ())}


def config_of(objects: dict[str, Json]) -> GatewayConfig:
    text = config_text(objects["Deployment"]["spec"]["template"])
    assert text is not None
    return GatewayConfig.model_validate_json(text)


def mounts(objects: dict[str, Json]) -> dict[str, str]:
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    names = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    found = pod["containers"][0]["volumeMounts"]
    return {names[m["name"]]: m["mountPath"] for m in found if m["name"] in names}


def test_a_gateway_is_open_where_access_is_off() -> None:
    objects = planned(OPEN)
    assert config_of(objects).callers is None
    assert "fourways-callers" not in mounts(objects)


def test_a_guarded_gateway_mounts_its_keys_and_knows_the_cluster() -> None:
    objects = planned(GUARDED)
    policy = config_of(objects).callers
    assert policy is not None
    assert mounts(objects)["fourways-callers"] == policy.keys_dir
    (issuer,) = policy.issuers
    assert (issuer.issuer, issuer.audience) == ("https://cluster", "fourways")
    scopes = {grant.subject: grant.scopes for grant in issuer.grants}
    assert scopes == {
        "system:serviceaccount:shop:*": ("predict:*", "read:*"),
        "system:serviceaccount:shop:fourways-gateway": ("*:*",),
        "system:serviceaccount:fourways:fourways-operator": ("read:*",),
    }


def test_other_issuers_and_accounts_are_those_of_the_chart() -> None:
    provider = TokenIssuer(
        issuer="https://id.example", audience="a", jwks_uri="https://id.example:8444/keys"
    )
    accounts = (ServiceAccountGrant(namespace="web", name="front", scopes=("predict:churn",)),)
    access = GatewayAccess(issuers=(provider,), service_accounts=accounts)
    objects = planned(replace(GUARDED, access=access))
    policy = config_of(objects).callers
    assert policy is not None
    assert policy.issuers[1] == provider
    assert policy.issuers[0].grants[0].subject == "system:serviceaccount:web:front"
    egress = objects["NetworkPolicy"]["spec"]["egress"]
    assert 8444 in {port["port"] for rule in egress for port in rule["ports"]}


def test_tls_adds_a_port_to_service_pod_and_policy() -> None:
    objects = planned(replace(OPEN, gateway_tls_secret="gateway-tls"))
    config = config_of(objects)
    assert mounts(objects)["gateway-tls"] == config.tls_dir
    ports = {p["name"]: (p["port"], p["targetPort"]) for p in objects["Service"]["spec"]["ports"]}
    assert ports == {"http": (80, 8080), "https": (443, 8443)}
    ingress = objects["NetworkPolicy"]["spec"]["ingress"]
    assert {p["port"] for rule in ingress for p in rule["ports"]} == {8080, 8443}
    assert "https" not in str(planned(OPEN)["Service"])


def test_plans_are_cached_by_settings_with_key_sets() -> None:
    provider = TokenIssuer(issuer="i", audience="a", jwks={"keys": [{"kid": "b"}]})
    with_jwks = replace(GUARDED, access=GatewayAccess(issuers=(provider,)))
    assert hash(with_jwks) == hash(replace(with_jwks))
    assert with_jwks != GUARDED


def test_the_charts_text_becomes_settings() -> None:
    text = (
        '{"keysSecret": "mine", "audience": "a", "serviceAccounts": [], "issuers": [],'
        ' "anonymous": ["metrics:*"]}'
    )
    settings = settings_of(options_of(["--gateway-auth", text, "--subject", "s"]))
    assert settings.access is not None
    assert (settings.access.keys_secret, settings.access.anonymous) == ("mine", ("metrics:*",))
    assert settings_of(options_of([])).access is None
    with pytest.raises(SystemExit):
        options_of(["--gateway-auth", '{"anonymous": ["fly:*"]}'])


class ApiServer:
    """The documents of an API server, which may be down."""

    def __init__(self) -> None:
        self.keys: list[Json] = [{"kid": "b"}, {"kid": "a"}]
        self.down = False

    async def read(self, path: str) -> Json:
        if self.down:
            raise ApiUnreachable(f"get {path}")
        return {CONFIGURATION: {"issuer": "https://cluster"}, KEYS: {"keys": self.keys}}[path]


async def test_the_clusters_keys_are_read_in_one_order() -> None:
    server = ApiServer()
    first = await read_cluster_issuer(server.read)
    assert first is not None
    assert [key["kid"] for key in first.jwks["keys"]] == ["a", "b"]
    server.keys.reverse()
    assert await read_cluster_issuer(server.read) == first, "another order rolls no gateway"


@pytest.mark.parametrize("answer", [{}, {"keys": None}, {"keys": ["x"]}, []])
async def test_an_answer_that_is_no_key_set_is_none(answer: Any) -> None:
    async def read(path: str) -> Any:
        return {"issuer": "i"} if path == CONFIGURATION else answer

    assert await read_cluster_issuer(read) is None


async def test_rotated_keys_are_reported_and_an_outage_is_not() -> None:
    server = ApiServer()
    found: list[ClusterIssuer] = []
    turn = asyncio.Event()
    changes = [lambda: None, lambda: setattr(server, "down", True), lambda: None]

    async def sleep(seconds: float) -> None:
        if not changes:
            turn.set()
            await asyncio.Event().wait()
        changes.pop(0)()
        if not changes:
            server.down, server.keys = False, [{"kid": "c"}]

    known = await read_cluster_issuer(server.read)
    task = asyncio.create_task(ClusterIssuerWatch(server.read, found.append, sleep, known).run())
    await turn.wait()
    task.cancel()
    assert [issuer.jwks["keys"][0]["kid"] for issuer in found] == ["c"]
