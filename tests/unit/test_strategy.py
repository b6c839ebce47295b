from __future__ import annotations

import re
from pathlib import Path

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fourways_api import Choice, Mode, Requirements, choose
from fourways_api.strategy import TREE_IN_CEL


@pytest.mark.parametrize(
    ("needs", "mode"),
    [
        ({}, "realtime"),
        ({"offline": True}, "edge"),
        ({"offline": True, "staleness": "24h", "inputsKnownAhead": True}, "edge"),
        ({"arrival": "Continuous"}, "streaming"),
        ({"arrival": "Continuous", "staleness": "24h", "inputsKnownAhead": True}, "streaming"),
        ({"arrival": "Scheduled"}, "batch"),
        ({"arrival": "Scheduled", "staleness": "1m"}, "batch"),
        ({"staleness": "1m", "inputsKnownAhead": True}, "batch"),
        ({"staleness": "59s999ms", "inputsKnownAhead": True}, "realtime"),
        ({"inputsKnownAhead": True}, "realtime"),
        ({"staleness": "24h"}, "realtime"),
        ({"latency": "20ms", "requestsPerSecond": 900}, "realtime"),
    ],
)
def test_the_tree_leads_to(needs: dict[str, object], mode: Mode) -> None:
    assert choose(Requirements.model_validate(needs)).mode == mode


@pytest.mark.parametrize(
    ("needs", "zero"),
    [
        ({"bursty": True}, True),
        ({"bursty": True, "requestsPerSecond": 1, "latency": "5s"}, True),
        ({"bursty": True, "requestsPerSecond": 1.1}, False),
        ({"bursty": True, "latency": "4999ms"}, False),
        ({"requestsPerSecond": 0.1}, False),
    ],
)
def test_rare_and_patient_traffic_is_served_on_demand(needs: dict[str, object], zero: bool) -> None:
    choice = choose(Requirements.model_validate(needs))
    assert (choice.mode, choice.scale_to_zero) == ("realtime", zero)


@pytest.mark.parametrize(
    ("needs", "fault"),
    [
        ({"offline": True, "arrival": "Scheduled"}, "scheduled run"),
        ({"offline": True, "arrival": "Continuous"}, "offline devices"),
        ({"arrival": "Scheduled", "staleness": "59s"}, "fresher than one minute"),
        ({"arrival": "Continuous", "staleness": "999ms"}, "fresher than one second"),
        ({"latency": "0s"}, "latency is zero"),
    ],
)
def test_needs_that_exclude_each_other_never_reach_the_tree(
    needs: dict[str, object], fault: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        Requirements.model_validate(needs)
    (error,) = refusal.value.errors()
    assert any(fault in rule.fault for rule in error["ctx"]["broken"])


@pytest.mark.parametrize(
    ("needs", "changed", "mode"),
    [
        ({}, {"offline": True}, "edge"),
        ({}, {"arrival": "Continuous"}, "streaming"),
        ({}, {"inputsKnownAhead": True, "staleness": "1m"}, "batch"),
        ({"offline": True}, {"offline": False}, "realtime"),
        ({"arrival": "Continuous"}, {"arrival": "OnRequest"}, "realtime"),
        ({"arrival": "Scheduled"}, {"arrival": "OnRequest"}, "realtime"),
        ({"inputsKnownAhead": True, "staleness": "2m"}, {"inputsKnownAhead": False}, "realtime"),
        ({"inputsKnownAhead": True, "staleness": "2m"}, {"staleness": "59s"}, "realtime"),
    ],
)
def test_the_way_out_a_step_names_leads_to_another_mode(
    needs: dict[str, object], changed: dict[str, object], mode: Mode
) -> None:
    assert choose(Requirements.model_validate(needs | changed)).mode == mode
    assert any(
        all(field in step.otherwise for field in changed)
        for step in choose(Requirements.model_validate(needs)).path
        if step.answer or step.mode == mode
    )


def test_the_path_ends_at_the_first_yes() -> None:
    choice = choose(Requirements.model_validate({"arrival": "Scheduled"}))
    assert [s.answer for s in choice.path] == [False, False, True]
    assert choice.reason == choice.path[-1].because


DURATIONS = st.sampled_from([None, "0ms", "1ms", "999ms", "1s", "59s", "60s", "1m1ms", "2h", "24h"])


@pytest.mark.thorough
@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "latency": DURATIONS,
            "staleness": DURATIONS,
            "offline": st.booleans(),
            "arrival": st.sampled_from(["OnRequest", "Scheduled", "Continuous"]),
            "inputsKnownAhead": st.booleans(),
            "bursty": st.booleans(),
        }
    )
)
def test_the_tree_in_cel_is_the_tree_in_python(needs: dict[str, object]) -> None:
    try:
        requirements = Requirements.model_validate(needs)
    except ValidationError:
        return
    spec = {"requirements": requirements.to_json()}
    leads_to = [m for m, text in TREE_IN_CEL.items() if cel.evaluate(text, {"self": spec})]
    assert leads_to == [choose(requirements).mode]


def test_an_explicit_mode_is_its_own_reason() -> None:
    from fourways_api import parse
    from tests.bad_manifests.cases import good

    spec = parse(good()["everything"]).spec
    assert spec.choice() == Choice("batch", "spec.mode selects it", ())


@pytest.mark.parametrize(
    ("needs", "because"),
    [
        ({}, "traffic is steady"),
        ({"bursty": True, "requestsPerSecond": 2}, "traffic is more than 1 request per second"),
        ({"bursty": True, "latency": "50ms"}, "callers wait at most 50ms, less than a cold start"),
    ],
)
def test_a_replica_is_kept_for_the_reason_that_holds(
    needs: dict[str, object], because: str
) -> None:
    assert choose(Requirements.model_validate(needs)).path[-1].because.startswith(because)


def test_the_page_about_modes_names_the_requirements_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs/choosing-a-mode.md").read_text()
    table = page.partition("| requirement |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {text.split(":")[0] for row in rows for text in re.findall(r"`([^`]+)`", row)}
    values = {"OnRequest", "Continuous"}
    assert named - values == {
        field.alias or name for name, field in Requirements.model_fields.items()
    }
