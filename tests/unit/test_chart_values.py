"""The chart's values: each is explained, and what they say of pods reaches the pods."""

from __future__ import annotations

import json
from dataclasses import replace

from fourways_operator.facts import Json
from fourways_operator.options import options_of, settings_of
from fourways_operator.planning import plan_gateway
from tests.kit.planned import SETTINGS
from tools.values_reference import explained, values

TOLERATIONS = [{"key": "infra", "operator": "Exists"}]


def test_every_value_is_explained() -> None:
    every = {value.path: value for value in values()}
    assert [path for path in every if not explained(path, every)] == []
    assert len(every) > 50


def gateway(**changes: object) -> Json:
    owner = {"metadata": {"name": "churn", "namespace": "shop", "uid": "u"}}
    plan = plan_gateway("shop", [owner], replace(SETTINGS, **changes))  # type: ignore[arg-type]
    (found,) = (each for each in plan if each["kind"] == "Deployment")
    template: Json = found["spec"]["template"]
    return template


def test_gateways_run_where_the_values_say() -> None:
    wanted = {
        "labels": {"team": "ml", "fourways.dev/component": "other"},
        "annotations": {"a": "b"},
        "tolerations": TOLERATIONS,
        "nodeSelector": {},
    }
    template = gateway(gateway_pod=json.dumps(wanted))
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["metadata"]["labels"]["fourways.dev/component"] == "gateway", "ours stay"
    assert template["spec"]["tolerations"] == TOLERATIONS
    assert "nodeSelector" not in template["spec"]


def test_variables_of_the_values_reach_gateways_and_replace_none_of_ours() -> None:
    more = [
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "team=ml"},
        {"name": "FOURWAYS_CONFIG", "value": "{}"},
    ]
    before = gateway()["spec"]["containers"][0]["env"]
    names = {each["name"] for each in before}
    assert "FOURWAYS_CONFIG" in names
    template = gateway(gateway_pod=json.dumps({"env": more}))
    assert template["spec"]["containers"][0]["env"] == [*before, more[0]]
    assert "env" not in template["spec"]


def test_replicas_of_a_gateway_are_spread_over_nodes() -> None:
    assert "topologySpreadConstraints" not in gateway()["spec"]
    (spread,) = gateway(gateway_replicas=2)["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


def test_the_operator_takes_the_placement_from_its_environment() -> None:
    settings = settings_of(options_of(["--gateway-pod", json.dumps({"tolerations": TOLERATIONS})]))
    assert json.loads(settings.gateway_pod) == {"tolerations": TOLERATIONS}
