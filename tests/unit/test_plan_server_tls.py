"""Encryption between gateways and model servers, as planned: who has which Secret and port."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_operator.installation import admitted_spec
from fourways_operator.options import options_of, settings_of
from fourways_operator.plan.routes import address_of, observed_of
from fourways_operator.planning import plan, plan_gateway
from tests.kit.planned import SETTINGS
from tests.transitions.changes import BLOCKS, deployment

TLS = replace(SETTINGS, server_tls_secret="servers", identity="ops/fourways")
HOST = "churn-realtime-predictor.shop.svc"
GATEWAY_LABELS = {"app.kubernetes.io/managed-by": "fourways", "fourways.dev/component": "gateway"}

Json = dict[str, Any]


def planned(settings: Any = TLS, **realtime: Any) -> dict[str, Json]:
    """Return the objects of a deployment and of its gateway, once its InferenceService lives."""
    doc = deployment("churn", mode="realtime", realtime=BLOCKS["realtime"]["realtime"] | realtime)
    if "runtime" in realtime:
        doc["spec"]["model"] |= {"uri": "s3://models/churn", "digestPolicy": "TrustOnFirstUse"}
        del doc["spec"]["realtime"]["features"]
    doc["metadata"]["uid"] = "u"
    spec = admitted_spec(doc, settings).spec
    assert spec is not None
    own = plan(spec, settings)
    live = [o for o in own if o["kind"] == "InferenceService"]
    gateway = plan_gateway("shop", [doc], settings, observed_of(live, [], None))
    return {f"{o['kind']}/{o['metadata']['name']}": o for o in (*own, *gateway)}


def config_of(container: Json) -> Json:
    (text,) = (e["value"] for e in container["env"] if e["name"] == CONFIG_VARIABLE)
    found: Json = json.loads(text)
    return found


def secrets_of(pod: Json) -> dict[str, Json]:
    """Return the Secrets that a pod mounts, by the folder, read-only."""
    mounts = {m["name"]: m for m in pod["containers"][0]["volumeMounts"]}
    found = {v["name"]: v["secret"] for v in pod["volumes"] if "secret" in v}
    assert all(mounts[name]["readOnly"] for name in found)
    return {mounts[name]["mountPath"]: secret for name, secret in found.items()}


def test_a_model_server_has_its_certificate_and_the_gateway_only_the_authority() -> None:
    objects = planned()
    server = objects["InferenceService/churn-realtime"]["spec"]["predictor"]
    gateway = objects["Deployment/fourways-gateway"]["spec"]["template"]["spec"]
    ca = {
        "secretName": "servers",
        "optional": True,
        "items": [{"key": "ca.crt", "path": "ca.crt"}],
    }
    mounted = secrets_of(server)
    assert mounted["/etc/fourways/tls"] == {"secretName": "servers", "optional": True}
    assert mounted["/etc/fourways/servers"] == ca
    assert secrets_of(gateway)["/etc/fourways/servers"] == ca
    assert "/etc/fourways/tls" not in secrets_of(gateway)
    told = config_of(server["containers"][0])["tls"]
    assert (told["host"], told["port"], told["secret"]) == (HOST, 8443, "servers")
    assert config_of(gateway["containers"][0])["serversCa"] == "/etc/fourways/servers/ca.crt"


def test_predictions_have_a_port_of_their_own_that_only_the_gateway_reaches() -> None:
    objects = planned()
    (container,) = objects["InferenceService/churn-realtime"]["spec"]["predictor"]["containers"]
    ports = [(p["name"], p["containerPort"]) for p in container["ports"]]
    assert ports == [("http", 8080), ("https", 8443)], "KServe's Service has the first as 80"
    assert container["readinessProbe"]["httpGet"]["port"] == 8080
    encrypted, plain = objects["NetworkPolicy/churn-realtime"]["spec"]["ingress"]
    assert encrypted["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert encrypted["from"] == [{"podSelector": {"matchLabels": GATEWAY_LABELS}}]
    assert plain["ports"] == [{"protocol": "TCP", "port": 8080}]
    (operator,) = plain["from"]
    assert "namespaceSelector" in operator
    egress = objects["NetworkPolicy/fourways-gateway"]["spec"]["egress"]
    ports = {p["port"] for rule in egress for p in rule["ports"]}
    assert 8443 in ports
    assert not {80, 8080} & ports


def test_the_gateway_asks_by_the_name_of_the_certificate() -> None:
    gateway = planned()["Deployment/fourways-gateway"]["spec"]["template"]["spec"]
    (route,) = config_of(gateway["containers"][0])["routes"]
    assert route["url"] == f"https://{HOST}:8443"


def test_a_secret_for_each_deployment() -> None:
    settings = replace(TLS, server_tls_secret="{deployment}-server", server_ca_secret="authority")
    objects = planned(settings)
    server = objects["InferenceService/churn-realtime"]["spec"]["predictor"]
    gateway = objects["Deployment/fourways-gateway"]["spec"]["template"]["spec"]
    assert secrets_of(server)["/etc/fourways/tls"]["secretName"] == "churn-server"
    for pod in (server, gateway):
        assert secrets_of(pod)["/etc/fourways/servers"]["secretName"] == "authority"


def test_one_authority_for_all_is_demanded(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--server-tls-secret", "{deployment}-server"]
    with pytest.raises(SystemExit):
        options_of(wanted)
    assert "--server-ca-secret" in capsys.readouterr().err
    settings = settings_of(options_of([*wanted, "--server-ca-secret", "authority"]))
    assert settings.servers_authority == "authority"


def test_a_runtime_of_kserve_and_no_setting_leave_everything_as_it_was() -> None:
    runtime = {"runtime": {"modelFormat": "sklearn"}}
    for settings, realtime in ((SETTINGS, {}), (TLS, runtime)):
        objects = planned(settings, **realtime)
        service = objects["InferenceService/churn-realtime"]
        assert address_of(service) is None, "KServe publishes it"
        assert "8443" not in json.dumps([service, objects["NetworkPolicy/churn-realtime"]])
