"""Every manifest of tests/bad_manifests, judged by Python; tests/cluster asks an API server."""

from __future__ import annotations

from typing import Any

import pytest

from fourways_api import check, parse
from tests.bad_manifests.cases import Case, bad, good
from tests.kit.faults import problems_of


@pytest.mark.parametrize("case", bad(), ids=lambda c: c.name)
def test_a_bad_manifest_is_refused_with_field_fault_and_fix(case: Case) -> None:
    problems = problems_of(case)
    assert [p.field for p in problems] == [case.field], problems
    assert case.says in f"{problems[0].fault}; {problems[0].fix}"


@pytest.mark.parametrize("document", good().values(), ids=lambda d: d["metadata"]["name"])
def test_a_good_manifest_is_accepted(document: dict[str, Any]) -> None:
    check(parse(document))


def test_there_are_enough_of_them() -> None:
    assert len(bad()) >= 100
    assert len({c.name for c in bad()}) == len(bad())
    assert len(good()) >= 10


def test_what_only_the_operator_can_refuse_is_little() -> None:
    assert {c.name for c in bad() if c.by == "operator"} == {
        "columns-backwards",
        "columns-too-many",
        "pod-selector-key",
        "schedule-backwards",
        "schedule-never",
        "zone-unknown",
    }
