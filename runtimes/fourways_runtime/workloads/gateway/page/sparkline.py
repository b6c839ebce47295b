"""A row of numbers as a small line or as bars, in the coordinates of an SVG."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 240, 40
_MARGIN = 3


def sparkline(values: Sequence[float], most: int = 60) -> str:
    """Return the points of a polyline for the last ``most`` values; empty for fewer than two."""
    shown = list(values)[-most:]
    if len(shown) < 2:
        return ""
    low, high = min(0.0, *shown), max(shown)
    span = (high - low) or 1.0
    step = (WIDTH - 2 * _MARGIN) / (len(shown) - 1)
    height = HEIGHT - 2 * _MARGIN
    points = (
        (_MARGIN + at * step, HEIGHT - _MARGIN - (value - low) / span * height)
        for at, value in enumerate(shown)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def bars(counts: Sequence[int]) -> list[dict[str, float]]:
    """Return a bar for each count, as its share of all: x, y, width and height."""
    total = sum(counts) or 1
    highest = max((count / total for count in counts), default=0) or 1.0
    width = WIDTH / max(1, len(counts))
    found = []
    for at, count in enumerate(counts):
        height = round(count / total / highest * HEIGHT, 1)
        x = round(at * width + 0.5, 1)
        found.append({"x": x, "y": HEIGHT - height, "width": round(width - 1, 1), "height": height})
    return found
