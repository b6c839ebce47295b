"""The results of a run, as a table and as files."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "serving.json"
PAGE = ROOT / "docs" / "figures-serving.md"

NAMES = {
    "raw": "the bare model: onnxruntime in a loop",
    "empty": "empty handler on our HTTP stack",
    "fourways": "**Fourways**, JSON",
    "binary": "**Fourways**, binary",
    "grpc": "**Fourways**, gRPC",
    "fastapi": "FastAPI + uvicorn",
    "kserve": "KServe SDK, logs off",
    "mlserver": "MLServer, in-process",
    "bentoml": "BentoML, in-process",
}
_POINTS = (
    "1 rows, c1",
    "1 rows, c16",
    "1 rows, c64",
    "32 rows, c1",
    "32 rows, c16",
    "32 rows, c64",
)


def times(
    found: dict[str, Any], point: str, other: str, at: str | None = None, name: str = "fourways"
) -> float:
    """Return ``name``'s rate relative to ``other``'s: the median of the ratios within each round.

    The machine's speed varies more between rounds than within one.
    """
    each = found["each_round"]
    pairs = zip(each[name][point], each[other][at or point], strict=True)
    return float(median(ours / theirs for ours, theirs in pairs))


def table(found: dict[str, Any]) -> str:
    """Return rates and CPU times as a table in Markdown, with shares of the bare model."""
    rates = found["rates"]
    lines = [
        "| requests/s (p50 / p99 in ms), CPU per request"
        f" | {' | '.join(_POINTS).replace('1 rows', '1 row')} | MB | ready, s |",
        "|---" * (len(_POINTS) + 3) + "|",
    ]
    for name, title in NAMES.items():
        if name not in rates:
            continue
        cells = [_cell(found, name, point) for point in _POINTS]
        memory, ready = found["memory_mb"].get(name), found["ready_seconds"].get(name)
        cells.append("" if memory is None else f"{memory:.0f}")
        cells.append("" if ready is None else f"{ready:.2f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: dict[str, Any], name: str, point: str) -> str:
    rows = point.partition(",")[0]
    raw = found["rates"].get("raw", {}).get(rows)
    if name == "raw":
        used = found["cpu_us"]["raw"][rows]
        return f"{raw:,.0f}, {used:.0f} µs" if point.endswith("c1") else ""
    rate = found["rates"][name][point]
    measured = found["details"][name][point]
    middle = sorted(measured, key=lambda each: each["rate"])[len(measured) // 2]
    used = found["cpu_us"][name][point]
    cell = f"{rate:,.0f} ({middle['p50_ms']:.2f} / {middle['p99_ms']:.2f}), {used:.0f} µs"
    if raw and name in ("fourways", "binary", "grpc"):
        cell += f", {times(found, point, 'raw', rows, name):.0%} of the model"
    return cell


def write(found: dict[str, Any]) -> None:
    """Write the results as JSON and as a page."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    cpu, one = found["cpu_us"], "1 rows, c16"
    peers = ("fastapi", "kserve", "mlserver", "bentoml")
    faster = ", ".join(f"{times(found, one, name):.1f} times {NAMES[name]}" for name in peers)
    less = ", ".join(f"{cpu[name][one] / cpu['fourways'][one]:.1f}" for name in peers)
    busiest = max(
        each["generator"]
        for points in found["details"].values()
        for point in points.values()
        for each in point
    )
    page = f"""# Figures of the model server

`make bench-serving` measures all of this side by side in one run and writes this page.

{table(found)}

One row at 16 connections: {faster}; in CPU time per request {less} times.

How it is measured: each server has one core, the load generator (wrk) the other. The model has 100
trees of depth 6 over 20 float features, with one onnxruntime thread. There are 2,048 different
requests of one row and 64 of 32 rows. Each figure is the median of {found["rounds"]} rounds of
{found["seconds"]:g} s per point, with all servers in each round. Shares and factors are medians of
the ratios within each round. CPU time per request is the server's own; other load on the machine
affects it least. Our server runs as it is deployed: a data contract with ranges on every input,
limits, metrics, time-outs, drain, and the hot path compiled as in the image. The others are
configured for maximum speed: orjson, uvloop, no logs, no metrics, no gzip, no worker processes
(`benchmarks/serving/peers/`). Before the measurement, all predictions are compared with the
model's. gRPC is asked by a client in Python, which takes more of its core than wrk. The generators
used at most {busiest:.0%} of their core. MB is the process's share of memory
(PSS) after the run; ready is from its start to its first ready answer, all servers sharing one
core. c1, c16 and c64 are the numbers of connections. Python {found["python"]}, {found["machine"]}.
"""
    PAGE.write_text(page)
