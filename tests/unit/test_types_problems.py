"""How documents are read and what is said about wrong ones, beyond the cases of bad_manifests."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from fourways_api import (
    InvalidSpec,
    Problem,
    Rule,
    check,
    check_update,
    dump_yaml,
    load_documents,
    parse,
    read_documents,
    review,
    worker_memory,
    worker_threads,
)
from fourways_api.cron import schedule_fault
from fourways_api.values import bytes_of, cores, seconds
from tests.bad_manifests.cases import change, good


def document(name: str = "batch", **changes: Any) -> dict[str, Any]:
    result = copy.deepcopy(good()[name])
    for path, value in changes.items():
        change(result, path.replace("__", "."), value)
    return result


def refusal(data: dict[str, Any]) -> list[Problem]:
    with pytest.raises(InvalidSpec) as refused:
        check(parse(data))
    return list(refused.value.problems)


def test_every_fault_is_told_at_once() -> None:
    found = refusal(document(spec__mode="x", spec__batch__keepRuns=0, spec__model__digest="y"))
    assert [p.field for p in found] == ["spec.mode", "spec.model.digest", "spec.batch.keepRuns"]


def test_every_broken_rule_of_an_object_is_told_at_once() -> None:
    data = document(spec__model__pythonClass="a:B", spec__model__digest=None)
    assert [p.field for p in refusal(data)] == ["spec.model.digest", "spec.model.pythonClass"]


def test_every_broken_rule_of_a_value_is_told_at_once() -> None:
    data = document(spec__model__uri="https://user:pw@h:0/../b")
    problems = refusal(data)
    assert {p.field for p in problems} == {"spec.model.uri"}
    assert [p.fault for p in problems] == [
        "the URI contains ..",
        "the URI contains credentials",
    ]


def test_a_list_is_not_called_short_because_its_item_is_wrong() -> None:
    data = document("smallest", spec__contract__inputs=[{"name": "x", "type": "float"}])
    assert [p.field for p in refusal(data)] == ["spec.contract.inputs[0].type"]


@pytest.mark.parametrize(
    ("value", "fix"),
    [(1.5, 'quote it: "1.5"'), (True, "quote it: YAML reads y"), ([1], "write a string")],
)
def test_a_text_that_yaml_read_as_something_else(value: object, fix: str) -> None:
    (problem,) = refusal(document(spec__model__version=value))
    assert problem.fix.startswith(fix)


def test_numbers_json_does_not_know() -> None:
    (problem,) = refusal(document("auto-realtime", spec__requirements__requestsPerSecond=1e999))
    assert problem.field == "spec.requirements.requestsPerSecond"
    assert "finite" in problem.fix


def test_a_document_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (data,) = load_documents("\n".join(lines))
    assert refusal(data) == [
        Problem("document", "too large or nested too deeply", "make it smaller")
    ]


def test_a_status_of_another_version_does_not_make_the_spec_wrong() -> None:
    deployment = parse(document() | {"status": {"mode": "quantum"}})
    assert deployment.status is None
    kept = parse(document() | {"status": {"mode": "batch", "lastRun": None}})
    assert kept.status is not None
    assert kept.status.mode == "batch"


def test_a_contract_too_large_to_carry() -> None:
    data = document("smallest")
    data["spec"]["contract"]["inputs"] = [
        {"name": f"x{i}", "type": "float32", "description": "x" * 500} for i in range(200)
    ]
    (problem,) = refusal(data)
    assert problem.field == "spec.contract"
    assert "bytes" in problem.fault


def test_settings_too_large_to_carry() -> None:
    values = ["ü" * 128] * 128
    (problem,) = refusal(document(spec__batch__source__filter=[{"column": "c", "values": values}]))
    assert problem.field == "spec.batch"
    assert "lists of values" in problem.fix


def test_only_the_entity_key_is_held_on_update() -> None:
    old = parse(document())
    check_update(old, parse(document(spec__mode="batch", spec__model__version="2")))
    with pytest.raises(InvalidSpec) as refused:
        check_update(old, parse(document(spec__contract__entityKey={"name": "other"})))
    (problem,) = refused.value.problems
    assert problem.field == "spec.contract.entityKey"


def test_a_rule_sees_self_and_old_self() -> None:
    rule = Rule("self.a >= oldSelf.a", "a shrinks", "let it grow")
    assert rule.transition
    assert rule.holds({"a": 2}, {"a": 1})
    assert not rule.holds({"a": 1}, {"a": 2})
    assert rule.message == "a shrinks; let it grow"


# ---------------------------------------------------------------- reading YAML

TWICE = "apiVersion: v1\nkind: Secret\n---\nspec:\n  mode: auto\n  model: {}\n  mode: batch\n"


def test_a_key_given_twice_is_told_with_its_line() -> None:
    secret, ours = read_documents(TWICE)
    assert not secret.is_ours
    assert secret.faults == ()
    assert ours.is_ours
    assert [str(f) for f in ours.faults] == [
        "line 7: the key mode occurs twice; remove one of them"
    ]
    with pytest.raises(InvalidSpec, match="line 7"):
        load_documents(TWICE)


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("a: [1\nb: 2", "line 2", "not YAML"),
        ("a:\n\tb: 1", "line 2", "a tab"),
        ("a: 1\n---\n- b", "line 3", "a list"),
        ("just words", "line 1", "a text"),
        ("a: *nowhere", "line 1", "alias"),
        ("[" * 600 + "]" * 600, "file", "nested too deep"),
        ("a: !!python/object:os.system x", "line 1", "not YAML"),
    ],
)
def test_what_is_not_a_document(text: str, line: str, fault: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        load_documents(text)
    (problem,) = refused.value.problems
    assert problem.field == line
    assert fault in problem.fault


def test_lines_of_fields() -> None:
    text = "# head\nspec:\n  contract:\n    inputs:\n    - name: a\n    - name: b\n      type: x\n"
    (found,) = read_documents(text)
    assert found.line("spec.contract.inputs[1].type") == 7
    assert found.line("spec.contract.inputs[1].range.min") == 6
    assert found.line("spec.model.uri") == 2
    assert found.line("elsewhere") == 2


def test_a_list_of_kubectl_is_its_items() -> None:
    items = "- kind: Secret\n  apiVersion: v1\n- kind: ModelDeployment\n"
    text = f"kind: List\napiVersion: v1\nitems:\n{items}"
    secret, ours = read_documents(text)
    assert (secret.is_ours, ours.is_ours) == (False, True)
    assert ours.line("kind") == 6


@pytest.mark.parametrize(
    "text", ["y", "No", "1e5", "08", "2024-01-01", "1:30", "null", "~", "=", "a"]
)
def test_texts_survive_being_written(text: str) -> None:
    written = dump_yaml({"name": text}, {"name": text})
    assert load_documents(written) == [{"name": text}] * 2


def test_nothing_in_a_file() -> None:
    assert load_documents("---\n# nothing\n---\n") == []


def test_misspelt_metadata_is_found_in_files_only() -> None:
    data = document(metadata__label={"a": "b"})
    parse(data)
    (found,) = read_documents(str(data))
    assert [p.field for p in review(found).problems] == ["metadata.label"]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ("0 3 * * *", None),
        ("0 3 29 2 *", None),
        ("@weekly", None),
        ("0 3 31 4 *", "the schedule has no run within five years"),
        ("0 3 * * fri-mon", "the range fri-mon is reversed"),
        ("50-10 * * * *", "the range 50-10 is reversed"),
        ("0 0 1 NOV-JAN ?", "the range NOV-JAN is reversed"),
    ],
)
def test_schedules_that_fit_the_pattern(schedule: str, fault: str | None) -> None:
    parse(document(spec__batch__schedule=schedule))
    assert schedule_fault(schedule, datetime(2026, 1, 1, tzinfo=UTC)) == fault


def test_quantities() -> None:
    assert (seconds("250ms"), seconds("1h30m"), seconds("0s")) == (0.25, 5400.0, 0.0)
    assert (cores("500m"), cores("2"), cores("0.25")) == (0.5, 2.0, 0.25)
    assert (bytes_of("512Mi"), bytes_of("2G")) == (2**29, 2 * 10**9)
    assert (bytes_of("1.5Gi"), bytes_of("0.001Mi")) == (3 * 2**29, 1049)


def test_whole_cores_may_be_a_number() -> None:
    resources = parse(document(spec__resources={"cpu": 2, "memory": "1.5Gi"})).spec.resources
    assert (resources.cpu, worker_threads(resources)) == ("2", 2)
    assert worker_memory(resources) == 3 * 2**29


@pytest.mark.parametrize("written", ["1.0", "1", "0x10", "1e3", "1_000"])
def test_what_is_to_be_quoted_is_told_as_the_file_has_it(written: str) -> None:
    text = dump_yaml(document(spec__model__version="VERSION")).replace("VERSION", written)
    (found,) = read_documents(text)
    assert [p.fix for p in review(found).problems] == [f'quote it: "{written}"']


def test_a_number_that_no_quotes_would_help_is_told_its_form() -> None:
    (problem,) = refusal(document(spec__resources__memory=512))
    assert problem.fix == "write an amount with its unit, as in 512Mi or 1.5Gi"


def test_an_object_is_judged_anew_when_it_differs_however_often_it_was_right() -> None:
    batch = {"spec__batch__schedule": "0 3 * * *"}
    for _ in range(2):
        check(parse(document(**batch)))
    for wrong in ({"spec__batch__timeZone": "Local"}, {"spec__model__digest": None}):
        for _ in range(2):
            assert refusal(document(**batch, **wrong))
        check(parse(document(**batch)))
