"""Choose the variant of a model for a target, and explain the choice in a table.

Pure: measurements in, choices out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fourways_api.modes import Budget, EdgeTarget

MIB = 2**20
TIE = 0.25
"""Median latencies within this share of each other count as equal. Repeated measurements of one
model on one machine differ by 10% and more, so the margin is wide: the order within it is noise."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one variant, scoring one record at a time in a separate process."""

    load_ms: float
    p50_ms: float
    p99_ms: float
    memory_bytes: int
    """Peak resident memory of the whole process."""

    agreement: float
    """Share of golden vectors reproduced within the declared tolerance."""

    vectors: int
    differences: tuple[str, ...] = ()
    """How the first few other vectors differ."""


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of the model: measured, or left out for a reason."""

    variant: str
    bundle_bytes: int = 0
    measured: Measured | None = None
    skipped: str = ""


def excess(row: Row, budget: Budget) -> list[str]:
    """Return the limits of a budget that a variant exceeds; an empty list means it fits."""
    if row.measured is None:
        return ["skipped"]
    checks = (
        ("size", row.bundle_bytes <= budget.size_mi_b * MIB),
        ("memory", row.measured.memory_bytes <= budget.memory_mi_b * MIB),
        ("latency", row.measured.p50_ms <= budget.latency_ms),
        ("agreement", row.measured.agreement >= budget.min_agreement),
    )
    return [name for name, kept in checks if not kept]


@dataclass(frozen=True, slots=True)
class VariantChoice:
    """The variant chosen for a target, and why."""

    row: Row
    reason: str


def winner(
    rows: Sequence[Row], target: EdgeTarget, published: str | None = None
) -> VariantChoice | None:
    """Return the variant for a target, or None if none fits its budget.

    A target that names its variant takes no other. ``published`` is the variant last published for
    the same source model. It is kept as long as it fits, so that the same inputs give the same
    bundle despite measurement noise. Otherwise, the smallest of the variants within the margin of
    the fastest wins.
    """
    fitting = [
        (row.measured.p50_ms, row)
        for row in rows
        if row.measured is not None
        and not excess(row, target.budget)
        and target.variant in (None, row.variant)
    ]
    if not fitting:
        return None
    if target.variant is not None:
        return VariantChoice(fitting[0][1], "the variant that the target names")
    for _, row in fitting:
        if row.variant == published:
            return VariantChoice(row, "published before for this source, and still fits the budget")
    best = min(latency for latency, _ in fitting)
    near = [row for latency, row in fitting if latency <= best * (1 + TIE)]
    if len(near) > 1:
        smallest = min(near, key=lambda row: (row.bundle_bytes, row.variant))
        return VariantChoice(smallest, f"the smallest of those within {TIE:.0%} of the fastest")
    only = len(fitting) == 1
    return VariantChoice(near[0], "the only one that fits the budget" if only else "the fastest")


def table(rows: Sequence[Row]) -> str:
    """Return the measurements as text, one line per variant."""
    head = ("variant", "size MiB", "memory MiB", "p50 ms", "p99 ms", "load ms", "agreement")
    lines = [head]
    notes = []
    for row in rows:
        if row.measured is None:
            notes.append(f"{row.variant}: left out: {row.skipped}")
            continue
        it = row.measured
        lines.append(
            (
                row.variant,
                f"{row.bundle_bytes / MIB:.2f}",
                f"{it.memory_bytes / MIB:.1f}",
                f"{it.p50_ms:.3f}",
                f"{it.p99_ms:.3f}",
                f"{it.load_ms:.1f}",
                f"{it.agreement:.4f}",
            )
        )
        notes += [f"{row.variant}: {difference}" for difference in it.differences[:1]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    text = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return "\n".join([*text, *notes])


def verdict(rows: Sequence[Row], targets: Sequence[EdgeTarget]) -> str:
    """Explain why no variant fits some targets: the table, then the exceeded limits per target."""
    lines = [table(rows)]
    for target in targets:
        budget = target.budget
        limits = (
            f"size {budget.size_mi_b} MiB, memory {budget.memory_mi_b} MiB, "
            f"latency {budget.latency_ms:g} ms, agreement {budget.min_agreement:g}"
        )
        if target.variant is not None:
            limits = f"variant {target.variant}, {limits}"
        past = "; ".join(
            f"{row.variant} fails {', '.join(excess(row, budget))}"
            for row in rows
            if row.measured is not None and target.variant in (None, row.variant)
        )
        lines.append(f"target {target.name} ({limits}): {past or _unmeasured(rows, target)}")
    return "no variant fits; nothing was published\n" + "\n".join(lines)


def _unmeasured(rows: Sequence[Row], target: EdgeTarget) -> str:
    for row in rows:
        if row.variant == target.variant:
            return f"{row.variant} was left out; set another variant, or none"
    return "no variant was measured"
