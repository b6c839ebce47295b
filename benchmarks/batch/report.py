"""The results of a run, as a table and as files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from statistics import median
from typing import Any

from benchmarks.figures import figure
from tools.venvs import ROOT

from .others import PEERS

RESULTS = ROOT / "benchmarks" / "results" / "batch.json"
PAGE = ROOT / "docs" / "figures-batch.md"
Found = dict[str, Any]

_NAMES = {
    "bare": "onnxruntime alone, one thread, rows in memory",
    "ours-store": "**Fourways** → PostgreSQL: chunks, ledger, key, one pointer moved",
    **{peer.name: f"{peer.title} → PostgreSQL" for peer in PEERS if peer.to == "store"},
    "ours-parquet": "**Fourways** → Parquet: chunks, ledger, one row per key, one pointer moved",
    **{peer.name: f"{peer.title} → Parquet" for peer in PEERS if peer.to == "parquet"},
    "two-store": "two workers of **Fourways** on both cores → PostgreSQL",
    "two-parquet": "two workers of **Fourways** on both cores → Parquet",
}
_WAYS = {
    "hash-scattered": "row hash, changes spread over the table",
    "hash-together": "row hash, changes in one place",
    "watermark-scattered": "watermark, changes spread over the table",
    "watermark-together": "watermark, changes in one place",
}


def rate(found: Found, name: str, by: str) -> float:
    """Return the median rate in rows/s, ``by`` clock time (seconds) or processor time (cpu)."""
    return float(median(run["rows"] / run[by] for run in found["runs"][name]))


def times(found: Found, one: str, other: str, by: str = "seconds") -> float:
    """Return ``one``'s rate relative to ``other``'s: the median of the ratios within each round.

    The machine's speed varies more between rounds than within one.
    """
    runs = found["runs"]
    pairs = zip(runs[one], runs[other], strict=False)  # some ran only in the first round
    return float(median(b[by] / a[by] * a["rows"] / b["rows"] for a, b in pairs))


def summary(found: Found) -> str:
    """Return all results as Markdown."""
    runs = found["runs"]
    parts = []
    if "bare" in runs:
        parts.append(_workers(found))
    if set(_WAYS) & set(runs):
        parts.append(_incremental(found))
    if "first_row" in found:
        parts.append(_others(found))
    return "\n\n".join(parts)


def _workers(found: Found) -> str:
    lines = [
        "| | rows/s | each round | rows per second of processor time "
        "| relative to onnxruntime alone: clock, processor | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in _NAMES.items():
        if name not in found["runs"]:
            continue
        runs = found["runs"][name]
        rounds = ", ".join(f"{run['rows'] / run['seconds'] / 1000:,.0f} k" for run in runs)
        # Ray works in its own processes.
        cpu = "" if name == "ray" else f"{rate(found, name, 'cpu'):,.0f}"
        shares = [
            f"{times(found, name, 'bare', by):.2f}"
            for by in ("seconds", "cpu")
            if cpu or by == "seconds"
        ]
        peak = "" if name == "ray" else f"{max(run['peak_mib'] for run in runs):.0f}"
        lines.append(
            f"| {title} | {rate(found, name, 'seconds'):,.0f} | {rounds} | {cpu} | "
            f"{', '.join(shares)} | {peak} |"
        )
    return "\n".join(lines)


def _incremental(found: Found) -> str:
    lines = [
        "| 1 % of the rows changed | relative to the full run: clock | processor |",
        "|---|---|---|",
    ]
    for name, title in _WAYS.items():
        if name not in found["runs"]:
            continue
        shares = [f"{part(found, name, by):.1%}" for by in ("seconds", "cpu")]
        lines.append(f"| {title} | {' | '.join(shares)} |")
    return "\n".join(lines)


def part(found: Found, name: str, by: str) -> float:
    """Return the time of an incremental run relative to the full run before it."""
    pairs = zip(found["runs"][name], found["runs"][f"{name}-full"], strict=True)
    return float(median(run[by] / full[by] for run, full in pairs))


def _others(found: Found) -> str:
    firsts = sorted(found["first_row"])
    lines = [
        f"Process start to first row recorded: {median(firsts):.2f} s by the clock "
        f"({firsts[0]:.2f} to {firsts[-1]:.2f} s in {len(firsts)} runs), "
        f"{median(found['first_row_cpu']):.2f} s of processor time."
    ]
    if "most" in found:
        for to in ("store", "parquet"):
            sizes = (found["rows"], found["most"])
            peaks = [
                f"{max(r['peak_mib'] for r in found['runs'][f'{to}-{rows}']):.0f} MiB"
                for rows in sizes
            ]
            lines.append(
                f"Peak memory of a worker → {to}, {sizes[0]:,} and {sizes[1]:,} rows: "
                f"{peaks[0]}, {peaks[1]}."
            )
    return "\n\n".join(lines)


def judged(found: Found) -> bool:
    """Compare with the goals and print each; return True if all are met."""

    def ratio(one: str, other: str) -> float:
        return times(found, one, other)

    def peak(name: str) -> float:
        return float(max(run["peak_mib"] for run in found["runs"][name]))

    needed = {"ours-store", "hash-scattered", "first-row", f"store-{found.get('most')}"}
    if not needed <= set(found["runs"]):
        return True  # Only parts were measured.
    most = found["most"]
    goals = [
        ("batch_store_of_model", ratio("ours-store", "bare"), 0.75, False),
        ("batch_parquet_of_polars", ratio("ours-parquet", "polars"), 0.97, False),
        ("batch_parquet_of_duckdb", ratio("ours-parquet", "duckdb"), 1.0, False),
        ("batch_parquet_of_dask", ratio("ours-parquet", "dask"), 1.0, False),
        ("batch_parquet_of_pandas", ratio("ours-parquet", "pandas"), 1.0, False),
        ("batch_parquet_times_ray", ratio("ours-parquet", "ray"), 4.0, False),
        ("batch_two_workers_store", ratio("two-store", "ours-store"), 1.5, False),
        ("batch_two_workers_parquet", ratio("two-parquet", "ours-parquet"), 1.8, False),
        ("batch_first_row_seconds", median(found["first_row"]), 0.6, True),
        ("batch_peak_mib_store", peak(f"store-{most}"), 250, True),
        ("batch_peak_mib_parquet", peak(f"parquet-{most}"), 250, True),
        *((f"batch_incremental_{way}", part(found, way, "seconds"), 0.05, True) for way in _WAYS),
    ]
    met = [figure(name, value, goal, at_most=at_most) for name, value, goal, at_most in goals]
    return all(met)


def write(found: Found) -> Found:
    """Write the results as JSON and as a page; return them together with parts of earlier runs."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    before: Found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    nested = {name: {**before.get(name, {}), **found[name]} for name in ("runs", "load")}
    found = {**before, **found, **nested, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    low, high = min(found["load"].values()), max(found["load"].values())
    PAGE.write_text(f"""# Figures of the batch worker

`make bench-batch` measures all of this side by side in one run and writes this page.

{summary(found)}

How it is measured: the table has {found["rows"]:,} rows, a text key and 20 float32 features, in
Parquet with zstd and row groups of 65,536 rows; a forest of 100 trees, one onnxruntime thread.
Each worker has one core and PostgreSQL (fsync and synchronous_commit on) the other, except that
two workers share both cores with it. {found.get("rounds", 0)} rounds, each with every worker once
(Ray Data and executemany only in the first). Rates are medians over the rounds; shares and goals
are medians of the ratios within each round. The time starts when a worker has loaded its libraries
and its model and is connected. It ends when its predictions are durable and, for Fourways,
published. Processor time is that of the worker alone: it includes neither PostgreSQL's work nor
the time spent waiting for it. The machine's load was {low:.0f} to {high:.0f} on its two cores:
where it is above 2, clock times include other load on the machine. Goals are judged by clock time.

Our worker is the process that the operator starts, with the packages and environment variables of
the runtime's image (`PYTHONUNBUFFERED`, `PYTHONDONTWRITEBYTECODE`; none for memory or threads). It
always uses the ledger, so every figure includes chunks that can be resumed. The peers keep no
record and do not publish atomically; none of them can resume after it was killed.
""")
    return found
