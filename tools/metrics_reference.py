"""Lists the metrics of all programs, read from the calls that make them.

The reference, the alert rules and the dashboards name metrics in text, which no type checker reads.
A test holds them against this list.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fourways_api.crd import update_or_check

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "metrics.md"

KINDS = {
    "Counter": "counter",
    "CounterMetricFamily": "counter",
    "Gauge": "gauge",
    "GaugeMetricFamily": "gauge",
    "Histogram": "histogram",
    "HistogramMetricFamily": "histogram",
    "PlainCounter": "counter",
    "PlainHistogram": "histogram",
}
"""What makes a metric: classes of prometheus_client, and our cheaper ones."""

PROGRAMS = {
    "operator/fourways_operator": "operator",
    "runtimes/fourways_runtime/workloads/gateway": "gateway",
    "runtimes/fourways_runtime/workloads/streaming": "stream worker",
    "runtimes/fourways_runtime/workloads/batch": "batch worker",
    "runtimes/fourways_runtime": "model server and workers",
    "runtimes/fourways_agent": "device agent",
}


@dataclass(frozen=True, slots=True, order=True)
class Metric:
    """A metric as Prometheus shows it: counters have the suffix ``_total``."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    program: str


def metrics() -> list[Metric]:
    """Return all metrics, by name."""
    found: dict[str, Metric] = {}
    for folder, program in PROGRAMS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            for metric in _in_module(file, program):
                found.setdefault(metric.name, metric)
    return sorted(found.values())


def _in_module(file: Path, program: str) -> Iterator[Metric]:
    text = file.read_text("utf-8")
    if '"fourways_' not in text:
        return  # Parsing every module takes seconds.
    tree = ast.parse(text)
    calls = [
        (KINDS[node.func.id], node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS
    ]
    of_table: tuple[str, ...] = ()
    for kind, call in calls:
        name, meaning = (*(_text(argument) for argument in call.args[:2]), "", "")[:2]
        if name.startswith("fourways_"):
            yield Metric(_shown(name, kind), kind, _labels(call), meaning, program)
        elif not name:
            of_table = of_table or _labels(call)
    # Gauges that are made in a loop over a table of names and texts.
    for name, meaning, labelled in _tables(tree):
        yield Metric(name, "gauge", of_table if labelled else (), meaning, program)


def _shown(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def _tables(tree: ast.AST) -> Iterator[tuple[str, str, bool]]:
    """Yield name and meaning of the rows of tables; those in a dictionary have labels."""
    for node in ast.walk(tree):
        rows: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(node, ast.Dict):
            rows = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key]
        elif isinstance(node, ast.Tuple) and len(node.elts) > 1:
            rows = [(node.elts[0], node.elts[1])]
        for key, value in rows:
            name = _text(key)
            text = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value
            if name.startswith("fourways_") and _text(text):
                yield name, _text(text), isinstance(node, ast.Dict)


def _text(node: ast.expr) -> str:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def _labels(call: ast.Call) -> tuple[str, ...]:
    given = [*call.args[2:3]]
    given += [k.value for k in call.keywords if k.arg in ("labelnames", "labels")]
    for node in given:
        if isinstance(node, ast.Tuple | ast.List):
            # A starred label is one that only some programs have.
            return tuple(_text(each) for each in node.elts if not isinstance(each, ast.Starred))
    return ()


def page() -> str:
    """Return the reference as Markdown."""
    lines = [
        "# Metrics",
        "",
        "Written by `make update` from the code. Each program serves its metrics at `/metrics`:",
        "gateways, model servers and stream workers on the port that answers requests,",
        "the operator on port 8081. Histograms also have `_bucket`, `_sum` and `_count`.",
        "",
        "| metric | kind | labels | meaning | served by |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.meaning}"
        f" | {m.program} |"
        for m in metrics()
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with --check report whether it is up to date."""
    return update_or_check(PAGE, page(), "tools.metrics_reference", "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
