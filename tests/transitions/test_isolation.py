"""A deployment that cannot be planned, or whose status cannot be worked out, costs only itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from fourways_api import Mode, ModelDeployment, Route
from fourways_operator import modes
from fourways_operator.facts import Json
from fourways_operator.pods import container_of

from .changes import apply, in_mode
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Step, play, second_look, state_of

NEIGHBOURS: tuple[Step, ...] = (in_mode("streaming", "a"), apply("b"), in_mode("realtime", "c"))
FAULT = ValueError("a value\x1b[31m that\nvalidation missed " + "x" * 5000)


def _settled(*steps: Step) -> FakeCluster:
    return asyncio.run(play(FakeCluster(), steps))


def _conditions(cluster: FakeCluster, name: str = "bad") -> dict[str, Json]:
    status = cluster.objects["ModelDeployment", NAMESPACE, name]["status"]
    return {c["type"]: c for c in status["conditions"]}


def _others(cluster: FakeCluster) -> dict[str, Json]:
    """Return what is not the bad one's; that it owns the gateway too is left out."""
    state = {name: obj for name, obj in state_of(cluster).items() if "/bad" not in name}
    for obj in state.values():
        meta = obj["metadata"]
        meta["ownerReferences"] = [r for r in meta.get("ownerReferences", []) if r["name"] != "bad"]
        meta.pop("managedFields")
    gateway = state.get(f"{NAMESPACE}/Deployment/fourways-gateway")
    if gateway:
        # Its uid is there too: what is in the store already goes on being answered.
        (variable,) = container_of(gateway)["env"]
        variable["value"] = re.sub('"bad":<[^>]*>,', "", variable["value"])
    return state


@cache
def _alone() -> dict[str, Json]:
    return _others(_settled(*NEIGHBOURS))


def _fails(*_: Any) -> Any:
    raise FAULT


def _fails_for_bad(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(first: ModelDeployment | Route, *rest: Any) -> Any:
        name = first.deployment if isinstance(first, Route) else first.metadata.name
        return _fails() if name == "bad" else function(first, *rest)

    return wrapped


def _break(monkeypatch: pytest.MonkeyPatch, mode: Mode, part: str) -> None:
    record = modes.MODES[mode]
    broken = replace(record, **{part: _fails_for_bad(getattr(record, part))})
    monkeypatch.setitem(modes.MODES, mode, broken)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["streaming", "realtime", "edge"])
@pytest.mark.parametrize("part", ["plan", "route", "route_ports", "route_secrets"])
def test_what_cannot_be_planned_costs_its_own_route_only(
    monkeypatch: pytest.MonkeyPatch, mode: Mode, part: str
) -> None:
    alone = _alone()
    _break(monkeypatch, mode, part)
    cluster = _settled(NEIGHBOURS[0], in_mode(mode, "bad"), *NEIGHBOURS[1:])
    assert _others(cluster) == alone
    assert {_conditions(cluster, name)["SpecValid"]["status"] for name in "abc"} == {"True"}
    conditions = _conditions(cluster)
    assert {kind: (c["status"], c["reason"]) for kind, c in conditions.items()} == {
        "SpecValid": ("True", "Valid"),
        "Ready": ("False", "PlanFailed"),
        "Degraded": ("True", "PlanFailed"),
        "Stalled": ("True", "PlanFailed"),
    }
    message = conditions["Degraded"]["message"]
    assert r"ValueError: a value\x1b[31m that validation missed" in message
    assert len(message) < 700
    assert asyncio.run(second_look(cluster)) == [], "it is not written again and again"


def test_what_cannot_be_planned_any_more_goes_on_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = _settled(in_mode("streaming", "bad"))
    before = {k: v for k, v in cluster.objects.items() if k[0] != "ModelDeployment"}
    _break(monkeypatch, "streaming", "plan")
    model = {"uri": "pvc://models/churn.onnx", "version": "2"}
    cluster = asyncio.run(play(cluster, [in_mode("streaming", "bad", model=model)]))
    after = {k: v for k, v in cluster.objects.items() if k[0] != "ModelDeployment"}
    assert after == before
    assert _conditions(cluster)["Stalled"]["reason"] == "PlanFailed"
    monkeypatch.undo()
    cluster = asyncio.run(play(cluster, [in_mode("streaming", "bad")]))
    assert "Stalled" not in _conditions(cluster)


def test_a_status_that_cannot_be_worked_out_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _alone()
    record = modes.MODES["batch"]

    def view(facts: Any, deployment: ModelDeployment, old: Any) -> Any:
        return (
            _fails() if deployment.metadata.name == "bad" else record.view(facts, deployment, old)
        )

    monkeypatch.setitem(modes.MODES, "batch", replace(record, view=view))  # type: ignore[arg-type]
    cluster = _settled(NEIGHBOURS[0], apply("bad"), *NEIGHBOURS[1:])
    assert _others(cluster) == alone
    assert ("CronJob", NAMESPACE, "bad-batch") in cluster.objects
    conditions = _conditions(cluster)
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == (
        "Unknown",
        "StatusFailed",
    )
    assert conditions["Degraded"]["reason"] == "StatusFailed"
    assert asyncio.run(second_look(cluster)) == []
