"""Plan and status take every spec that validation accepts: neither ever raises for one.

An exception there would cost every deployment of the namespace, because the gateway's objects are
planned for all of them together.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from fourways_api import InvalidSpec, check, parse
from fourways_api.runtime_config import MAX_CONFIG_BYTES
from fourways_operator.facts import Facts
from fourways_operator.planning import plan_gateway
from fourways_operator.status import status_of
from tests.bad_manifests.generate import manifests
from tests.kit.planned import SETTINGS, containers, planned

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def judged(document: dict[str, Any]) -> bool:
    """Plan a manifest if it is valid, and describe it; tell whether it was."""
    document["metadata"] = {**document["metadata"], "uid": "u", "generation": 1}
    try:
        deployment = parse(document)
        check(deployment)
    except InvalidSpec as refusal:
        problems = refusal.problems
        assert problems
        assert all(p.field and p.fault and p.fix for p in problems)
        facts = Facts(document, now=NOW)
        assert status_of(facts, problems)["conditions"]
        return False
    objects = (*planned(deployment), *plan_gateway("default", [document], SETTINGS))
    for container in containers(objects):
        assert all(len(e.get("value", "")) <= MAX_CONFIG_BYTES for e in container["env"])
    facts = Facts(document, wanted=objects, now=NOW)
    assert status_of(facts, deployment=deployment)["conditions"]
    return True


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [5, pytest.param(150, marks=pytest.mark.thorough)])
def test_no_valid_manifest_makes_plan_or_status_raise(count: int) -> None:
    seen = {True: 0, False: 0}

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(manifests())
    def judge(document: dict[str, Any]) -> None:
        seen[judged(document)] += 1

    judge()
    # About a sixth is valid; few examples say nothing of that.
    assert min(seen.values()) >= count // 50, f"one-sided: {seen}"
