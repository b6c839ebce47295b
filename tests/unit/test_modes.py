"""The table of modes: one record for each mode of the API."""

from dataclasses import replace
from typing import get_args

import pytest

from fourways_api import Mode, Status, parse
from fourways_api.reasons import Reason
from fourways_api.runtime_config import Route
from fourways_operator.conditions.batch import BatchView
from fourways_operator.conditions.common import ConditionChain, constant, evaluate
from fourways_operator.facts import OperatorSettings
from fourways_operator.modes import MODES, mode_of
from fourways_operator.plan.routes import config_of
from fourways_operator.planning import plan, plan_gateway
from fourways_operator.status import status_of
from tests.kit.mode_facts import BLOCKS, deployment, facts

SETTINGS = OperatorSettings(runtime_image="runtime:1")


def test_every_mode_of_the_api_has_a_record() -> None:
    assert set(MODES) == set(get_args(Mode))


def test_every_mode_with_a_route_says_what_it_needs() -> None:
    for mode in get_args(Route.model_fields["mode"].annotation):
        route = mode_of(parse(deployment(mode))).route(parse(deployment(mode)), None)
        assert route is not None
        assert route.mode == mode
        assert MODES[mode].route_ports(route) is not None


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_planned_and_reported(mode: str) -> None:
    document = deployment(mode)
    assert plan(parse(document), SETTINGS)
    status = status_of(facts(document), (), parse(document))
    assert status["mode"] == mode


@pytest.mark.parametrize("mode", MODES)
def test_every_chain_ends_in_a_result(mode: str) -> None:
    document = deployment(mode)
    view = mode_of(parse(document)).view(facts(document), parse(document), Status())
    chains: dict[str, ConditionChain] = dict(view.conditions())
    assert set(chains) == {"Ready", "Progressing", "Degraded", "ModelResolved"}
    assert set(evaluate(view)) == set(chains)


def test_a_condition_is_one_more_chain_in_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(BatchView):
        def conditions(self) -> dict[str, ConditionChain]:
            return {**super().conditions(), "Toy": (constant("True", Reason.Valid, "toy"),)}

    monkeypatch.setitem(MODES, "batch", replace(MODES["batch"], view=Toy.of))  # type: ignore[arg-type]
    status = status_of(facts(deployment("batch")), (), parse(deployment("batch")))
    toy = next(c for c in status["conditions"] if c["type"] == "Toy")
    assert (toy["status"], toy["reason"], toy["observedGeneration"]) == ("True", "Valid", 4)


def test_a_mode_is_one_more_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record made of parts of others is planned, routed and reported under its own name."""
    toy = replace(MODES["batch"], route=MODES["streaming"].route)
    monkeypatch.setitem(MODES, "batch", toy)  # type: ignore[arg-type]
    document = deployment("batch", streaming=BLOCKS["streaming"]["streaming"])
    (gateway,) = (
        o for o in plan_gateway("demo", [document], SETTINGS) if o["kind"] == "Deployment"
    )
    config = config_of(gateway)
    assert config is not None
    assert [r.deployment for r in config.routes] == ["m"]
