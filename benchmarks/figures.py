"""The output format of benchmark results."""

from __future__ import annotations


def figure(name: str, value: float, goal: float, *, at_most: bool = True) -> bool:
    """Print one figure with its goal; return whether the goal is met."""
    met = value <= goal if at_most else value >= goal
    print(f"figure {name} {value:.3g} {goal:g} {'ok' if met else 'short'}", flush=True)
    return met


def percentile(values: list[float], share: float) -> float:
    """Return the value at the given quantile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
