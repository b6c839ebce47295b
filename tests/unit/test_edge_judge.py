"""Which variant a device gets, and the table that says why none does."""

from __future__ import annotations

from typing import Any

import pytest

from fourways_api.modes import Budget, EdgeTarget
from fourways_runtime.workloads.edge.judge import MIB, TIE, Measured, Row, excess, verdict, winner


def row(
    variant: str, size: float = 1, memory: float = 100, p50: float = 1, agreement: float = 1
) -> Row:
    measured = Measured(10, p50, p50 * 2, int(memory * MIB), agreement, 100)
    return Row(variant, int(size * MIB), measured)


def budget(**more: Any) -> Budget:
    return Budget.model_validate(
        {"sizeMiB": 4, "memoryMiB": 128, "latencyMs": 5, "minAgreement": 0.99} | more
    )


def target(limits: Budget | None = None, variant: str | None = None) -> EdgeTarget:
    told = {"name": "door", "budget": (limits or budget()).to_json(), "variant": variant}
    return EdgeTarget.model_validate(told)


SKIPPED = Row("int8", skipped="nothing to quantise")


def chosen(rows: list[Row], limits: Budget | None = None, published: str | None = None) -> str:
    choice = winner(rows, target(limits), published)
    return "none" if choice is None else choice.row.variant


def test_the_fastest_that_fits_wins() -> None:
    assert chosen([row("fp32", p50=3), row("int8", p50=2)]) == "int8"
    assert chosen([row("fp32", p50=2), row("int8", p50=3, size=0.1)]) == "fp32"


def test_of_two_about_as_fast_the_smaller_wins_whichever_was_faster_this_time() -> None:
    for fp32, int8 in ((1.0, 1.05), (1.05, 1.0), (1.0, 1 + TIE), (0.0682, 0.0753)):
        rows = [row("fp32", p50=fp32, size=3), row("int8", p50=int8, size=1)]
        assert chosen(rows) == "int8"


def test_the_variant_published_before_is_kept_while_it_fits() -> None:
    rows = [row("fp32", p50=4), row("int8", p50=1)]
    choice = winner(rows, target(), "fp32")
    assert choice is not None
    assert (choice.row.variant, "published before" in choice.reason) == ("fp32", True)
    assert chosen(rows, budget(latencyMs=2), "fp32") == "int8", "it no longer fits"
    assert chosen([SKIPPED, rows[0]], published="int8") == "fp32", "it is not made any more"
    assert chosen(rows, published="of another version") == "int8"


def test_a_target_that_names_its_variant_gets_no_other() -> None:
    rows = [row("fp32", p50=4), row("int8", p50=1)]
    choice = winner(rows, target(variant="fp32"), "int8")
    assert choice is not None
    assert (choice.row.variant, choice.reason) == ("fp32", "the variant that the target names")
    slow = target(budget(latencyMs=2), "fp32")
    assert winner(rows, slow) is None
    told = verdict(rows, [slow]).splitlines()[-1]
    assert told.startswith("target door (variant fp32, size 4 MiB")
    assert told.endswith("fp32 fails latency"), "the other variant is not mentioned"
    none = verdict([row("fp32"), SKIPPED], [target(variant="int8")]).splitlines()[-1]
    assert none.endswith("int8 was left out; set another variant, or none")


@pytest.mark.parametrize(
    ("slim", "past"),
    [
        ({"sizeMiB": 1}, "size"),
        ({"memoryMiB": 64}, "memory"),
        ({"latencyMs": 0.5}, "latency"),
        ({"minAgreement": 0.999}, "agreement"),
    ],
)
def test_a_variant_past_the_budget_is_not_taken_however_fast(
    slim: dict[str, float], past: str
) -> None:
    fast = row("int8", p50=1, size=2, agreement=0.995)
    assert excess(fast, budget(**slim)) == [past]
    good = row("fp32", p50=0.4, size=0.5, memory=32)
    slow = budget(**{"latencyMs": 50} | slim)
    assert chosen([fast, good], slow) == "fp32"


def test_a_variant_left_out_never_wins() -> None:
    assert winner([SKIPPED], target()) is None
    fp32 = row("fp32")
    assert chosen([fp32, SKIPPED]) == "fp32"


def test_the_verdict_shows_what_was_measured_and_what_each_target_refuses() -> None:
    tight = target(budget(sizeMiB=1, memoryMiB=64))
    told = verdict([row("fp32", size=2.5, memory=99.5, p50=1.25), SKIPPED], [tight])
    assert told.splitlines() == [
        "no variant fits; nothing was published",
        "variant  size MiB  memory MiB  p50 ms  p99 ms  load ms  agreement",
        "   fp32      2.50        99.5   1.250   2.500     10.0     1.0000",
        "int8: left out: nothing to quantise",
        "target door (size 1 MiB, memory 64 MiB, latency 5 ms, agreement 0.99):"
        " fp32 fails size, memory",
    ]
