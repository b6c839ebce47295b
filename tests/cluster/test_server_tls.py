"""Encryption between gateways and model servers on a cluster: KServe's Service has the port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.kit.certificates import TestAuthority
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, example
from tools.demo.questions import tensor

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]

NAME = "sealed"
ANONYMOUS = ("--set", "gateway.auth.anonymous={*:*}")
TLS = ("--set", "servers.tls.secretName=model-servers")
KUBELET_SECONDS = 150
"""The kubelet updates a mounted Secret within about a minute."""


def give(plant: Plant, authority: TestAuthority, days: float = 1) -> None:
    data = authority.issue(f"*.{NAMESPACE}.svc", days=days)
    files = {key: value.decode() for key, value in data.items()}
    plant.cluster.give_secret(NAMESPACE, "model-servers", files)


@pytest.fixture(scope="module")
def sealed(modes: Plant) -> Iterator[tuple[Plant, TestAuthority]]:
    """A real-time deployment whose model server has a certificate, Ready."""
    authority = TestAuthority()
    give(modes, authority)
    modes.cluster.install(NAMESPACE, *ANONYMOUS, *TLS)
    try:
        with modes.deployed(example("come-back.yaml", NAME)) as timeline:
            modes.ready(NAME)
            timeline.mark("Ready")
            yield modes, authority
        timeline.tell()
    finally:
        modes.cluster.install(NAMESPACE, *ANONYMOUS)


def asked(url: str) -> httpx.Response:
    inputs: list[dict[str, Any]] = [
        tensor("customer_id", "BYTES", ["no-such-customer"]),
        tensor("basket_dollars", "FP32", [24.5]),
        tensor("basket_discs", "INT32", [2]),
    ]
    path = f"{url}/v2/models/{NAME}/infer"
    return httpx.post(path, json={"inputs": inputs}, trust_env=False, timeout=30)


def test_the_gateway_answers_and_the_plain_port_has_no_predictions(
    sealed: tuple[Plant, TestAuthority],
) -> None:
    plant, _ = sealed
    with plant.gateway() as url:
        answer = asked(url)
    assert answer.status_code == 200, answer.text
    service = f"svc/{NAME}-realtime-predictor"
    with plant.cluster.forwarded(NAMESPACE, service, 80) as url:
        assert httpx.get(f"{url}/v2/health/ready", trust_env=False).status_code == 200
        assert asked(url).status_code == 404
    ports = plant.get(f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}-realtime-predictor")
    assert {port["port"] for port in ports["spec"]["ports"]} == {80, 8443}


@pytest.mark.long  # tests/embedded/test_gateway_tls.py renews certificates without a kubelet
def test_an_expired_certificate_is_said_until_it_is_renewed(
    sealed: tuple[Plant, TestAuthority],
) -> None:
    plant, authority = sealed
    give(plant, authority, days=-1)
    plant.said(NAME, "Degraded", KUBELET_SECONDS, status="True", reason="CertificateInvalid")
    assert "Secret model-servers: gateways do not accept" in plant.message(NAME, "Degraded")
    give(plant, authority)
    plant.said(NAME, "Degraded", KUBELET_SECONDS, status="False")
    plant.ready(NAME)
