"""Helm 4 makes of the chart what Helm 3 makes of it.

Building Helm 4 takes minutes once, so `make test` leaves this out; the tests of the chart render it
with Helm 3.
"""

from __future__ import annotations

import pytest

from tools.cluster import gobuild
from tools.install_yaml import rendered

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]

EVERYTHING = (
    "watch.cluster",
    "gateway.grpc.enabled",
    "monitoring.podMonitors.enabled",
    "monitoring.rules.enabled",
    "monitoring.dashboards.enabled",
    "trialPostgresql.enabled",
    "trialNats.enabled",
)
INSTALLATIONS: dict[str, tuple[str, ...]] = {
    "as-it-is": (),
    "with-everything": tuple(w for name in EVERYTHING for w in ("--set", f"{name}=true")),
    "with-cloudnativepg": (
        *("--api-versions", "postgresql.cnpg.io/v1"),
        *("--set", "cloudnativePg.enabled=true"),
    ),
    "with-lists": (
        *("--set-json", 'trialNats={"enabled":true,"streams":[{"name":"A","subjects":["a.*"]}]}'),
        *("--set", "gateway.auth.anonymous={*:*}"),
    ),
}


@pytest.fixture(scope="session")
def helm4() -> str:
    return str(gobuild.build_own(gobuild.HELM4).path("helm"))


@pytest.mark.parametrize("options", INSTALLATIONS.values(), ids=INSTALLATIONS)
def test_helm_4_renders_what_helm_3_renders(
    helm: str, helm4: str, options: tuple[str, ...]
) -> None:
    by_helm4 = rendered(helm4, *options, skip_tests=False)
    assert by_helm4 == rendered(helm, *options, skip_tests=False)
    assert {"Deployment", "CustomResourceDefinition"} <= {each["kind"] for each in by_helm4}
