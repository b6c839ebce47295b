"""Grafana dashboards, made from lists of panels: ``python -m tools.dashboards [--check]``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "charts" / "fourways" / "files" / "dashboards"
WIDTH, HEIGHT = 8, 8
COLUMNS = 24 // WIDTH
_BY = 'namespace=~"$namespace"'
_RATE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: a query for each legend."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """PromQL, and the legend in which ``{{label}}`` stands for a label."""

    kind: str = "timeseries"


def _quantiles(metric: str, by: str, among: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{{{among}}}{_RATE})))",
            f"{{{{{by}}}}} p{int(float(q) * 100)}",
        )
        for q in ("0.5", "0.99")
    )


def _rate(metric: str, by: str, among: str = _BY) -> tuple[str, str]:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return f"sum by ({by}) (rate({metric}{{{among}}}{_RATE}))", legend


def _cpu(answers: str) -> tuple[str, str]:
    """Return the seconds of processor time that a pod takes for 1,000 of what a counter counts."""
    used = f"sum by (namespace, pod) (rate(process_cpu_seconds_total{{{_BY}}}{_RATE}))"
    given = f"sum by (namespace, pod) (rate({answers}{{{_BY}}}{_RATE}))"
    return f"1000 * {used} / ({given} > 0)", "{{pod}}"


_CPU = "CPU-seconds per 1,000 answers"
_VERSIONS = Panel(
    "Model of each pod",
    "none",
    (
        (
            f'fourways_model_info{{{_BY}, deployment=~"$deployment"}}',
            "{{deployment}} {{pod}} {{version}}",
        ),
    ),
    "table",
)
_GATEWAY = f'{_BY}, deployment=~"$deployment"'
_NAMED = f'{_BY}, name=~"$deployment"'
_REQUESTS = "fourways_gateway_requests_total"
_FAILED = f'sum by (deployment) (rate({_REQUESTS}{{{_GATEWAY}, code=~"5.."}}{_RATE}))'
_ALL = f"sum by (deployment) (rate({_REQUESTS}{{{_GATEWAY}}}{_RATE}))"

DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "fleet": (
        "Fourways: fleet",
        (
            Panel(
                "Deployments by mode and readiness",
                "none",
                (("sum by (mode, ready) (fourways_deployments)", "{{mode}} Ready={{ready}}"),),
                "bargauge",
            ),
            Panel(
                "Not ready",
                "none",
                ((f"fourways_deployment_ready{{{_BY}}} == 0", "{{namespace}}/{{name}} {{mode}}"),),
                "table",
            ),
            Panel(
                "Degraded",
                "none",
                ((f"fourways_deployment_failed{{{_BY}}} == 1", "{{namespace}}/{{name}} {{mode}}"),),
                "table",
            ),
            Panel("Requests", "reqps", (_rate(_REQUESTS, "namespace, mode"),)),
            Panel(
                "Failed requests",
                "reqps",
                (_rate(_REQUESTS, "namespace, deployment", f'{_BY}, code=~"5.."'),),
            ),
            Panel(
                "Prediction store answers",
                "bool_on_off",
                ((f"min by (namespace) (fourways_store_up{{{_BY}}})", "{{namespace}}"),),
            ),
            Panel(
                "Reconciles",
                "ops",
                ((f"sum by (result) (rate(fourways_reconciles_total{_RATE}))", "{{result}}"),),
            ),
            Panel(
                "Reconcile time",
                "s",
                (
                    (
                        "histogram_quantile(0.99, sum by (le) (rate("
                        f"fourways_reconcile_seconds_bucket{_RATE})))",
                        "p99",
                    ),
                ),
            ),
            Panel(
                "Work queue",
                "none",
                (("fourways_queue_depth", "waiting"), ("fourways_queue_delayed", "to be retried")),
            ),
        ),
    ),
    "deployment": (
        "Fourways: deployment",
        (
            Panel("Requests by status", "reqps", (_rate(_REQUESTS, "deployment, code", _GATEWAY),)),
            Panel("Share that fails", "percentunit", ((f"{_FAILED} / {_ALL}", "{{deployment}}"),)),
            Panel(
                "Response time",
                "s",
                _quantiles("fourways_gateway_request_duration_seconds", "deployment", _GATEWAY),
            ),
            Panel(
                "Faults by party",
                "reqps",
                (_rate("fourways_gateway_faults_total", "deployment, party", _GATEWAY),),
            ),
            Panel(
                "Requests waiting or being answered",
                "none",
                ((f"fourways_requests_in_flight{{{_GATEWAY}}}", "{{deployment}}"),),
            ),
            Panel(
                "Refused callers",
                "reqps",
                (_rate("fourways_gateway_refused_requests_total", "cause"),),
            ),
            Panel("Rows scored", "rowsps", (_rate("fourways_inference_rows_total", "pod"),)),
            Panel(
                "Wait of a batch's first request",
                "s",
                _quantiles("fourways_queue_seconds", "pod", _BY),
            ),
            Panel(_CPU, "s", (_cpu("fourways_inference_rows_total"),)),
            _VERSIONS,
            Panel("Model time of a batch", "s", _quantiles("fourways_model_seconds", "pod", _BY)),
            Panel(
                "Turned away for lack of time",
                "reqps",
                (_rate("fourways_inference_rejected_total", "pod"),),
            ),
            Panel(
                "Feature lookups",
                "ops",
                (
                    _rate("fourways_feature_lookups_total", "pod"),
                    _rate("fourways_feature_failures_total", "reason"),
                ),
            ),
            Panel("Feature lookup time", "s", _quantiles("fourways_feature_seconds", "pod", _BY)),
            Panel(
                "Cold starts",
                "s",
                _quantiles("fourways_cold_start_seconds", "deployment", _GATEWAY),
            ),
            Panel(
                "Drift of model servers and stream workers",
                "none",
                ((f"topk(10, fourways_drift_psi{{{_BY}}})", "{{pod}} {{side}} {{field}}"),),
            ),
            Panel(
                "Quality of batch runs",
                "none",
                ((f"fourways_deployment_quality{{{_NAMED}}}", "{{name}} {{metric}}"),),
            ),
        ),
    ),
    "batch": (
        "Fourways: batch runs",
        (
            Panel(
                "Age of the published predictions",
                "s",
                ((f"fourways_prediction_age_seconds{{{_GATEWAY}}}", "{{deployment}}"),),
            ),
            Panel(
                "Rows of the run in progress",
                "none",
                ((f"fourways_run_rows{{{_GATEWAY}}}", "{{deployment}}"),),
            ),
            Panel(
                "Speed",
                "rowsps",
                ((f"fourways_run_rows_per_second{{{_GATEWAY}}}", "{{deployment}}"),),
            ),
            Panel("Rejects", "none", ((f"fourways_run_rejects{{{_GATEWAY}}}", "{{deployment}}"),)),
            Panel(
                "Time left", "s", ((f"fourways_run_seconds_left{{{_GATEWAY}}}", "{{deployment}}"),)
            ),
            Panel("Workers", "none", ((f"fourways_run_workers{{{_GATEWAY}}}", "{{deployment}}"),)),
            Panel(
                "Runs that ended in an hour",
                "none",
                (("sum by (outcome) (increase(fourways_runs_total[1h]))", "{{outcome}}"),),
            ),
            Panel(
                "Keys looked up",
                "ops",
                (_rate("fourways_lookup_keys_total", "deployment", _GATEWAY),),
            ),
            Panel(
                "Keys without a prediction",
                "ops",
                (_rate("fourways_lookup_misses_total", "deployment", _GATEWAY),),
            ),
        ),
    ),
    "stream": (
        "Fourways: streams",
        (
            Panel("Events", "ops", (_rate("fourways_stream_events_total", "pod"),)),
            Panel("Lag", "none", ((f"sum by (pod) (fourways_stream_lag{{{_BY}}})", "{{pod}}"),)),
            Panel(
                "Age of the oldest event",
                "s",
                ((f"fourways_stream_oldest_event_seconds{{{_BY}}}", "{{pod}}"),),
            ),
            Panel("Dead letters", "ops", (_rate("fourways_stream_dead_letters_total", "pod"),)),
            Panel(
                "Events the broker deleted",
                "ops",
                (_rate("fourways_stream_expired_events_total", "pod"),),
            ),
            Panel(
                "Stages of a micro-batch",
                "s",
                _quantiles("fourways_stream_stage_seconds", "stage", _BY),
            ),
            Panel(
                "Restarts from the store's positions",
                "ops",
                (_rate("fourways_stream_resets_total", "pod"),),
            ),
            Panel(
                "Keys without a fresh answer",
                "ops",
                (_rate("fourways_stream_misses_total", "deployment", _GATEWAY),),
            ),
            Panel("Ready", "bool_on_off", ((f"fourways_stream_ready{{{_BY}}}", "{{pod}}"),)),
            Panel(_CPU, "s", (_cpu("fourways_stream_events_total"),)),
            _VERSIONS,
        ),
    ),
    "edge": (
        "Fourways: devices",
        (
            Panel(
                "Devices that looked for a bundle within a day",
                "none",
                (
                    (
                        f"max by (deployment, target) (fourways_devices{{{_GATEWAY}}})",
                        "{{deployment}} {{target}}",
                    ),
                ),
            ),
            Panel(
                "Devices that began to fetch a release in an hour",
                "none",
                (
                    (
                        "sum by (deployment, target) "
                        f"(increase(fourways_device_updates_total{{{_GATEWAY}}}[1h]))",
                        "{{deployment}} {{target}}",
                    ),
                ),
            ),
            Panel(
                "Requests of devices by status",
                "reqps",
                (_rate(_REQUESTS, "deployment, code", f'{_GATEWAY}, mode="edge"'),),
            ),
            Panel(
                "Drift of devices",
                "none",
                (
                    (
                        "topk(10, max by (deployment, side, field) "
                        f"(fourways_drift_psi{{{_GATEWAY}}}))",
                        "{{deployment}} {{side}} {{field}}",
                    ),
                ),
            ),
            Panel(
                "Records that devices told of",
                "none",
                (
                    (
                        f"max by (deployment) (fourways_drift_records{{{_GATEWAY}}})",
                        "{{deployment}}",
                    ),
                ),
            ),
            Panel(
                "Not ready",
                "none",
                (
                    (
                        f'fourways_deployment_ready{{{_NAMED}, mode="edge"}} == 0',
                        "{{namespace}}/{{name}}",
                    ),
                ),
                "table",
            ),
        ),
    ),
}


def rendered(name: str) -> str:
    """Return a dashboard as JSON."""
    title, panels = DASHBOARDS[name]
    made = {
        "uid": f"fourways-{name}",
        "title": title,
        "tags": ["fourways"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), *map(_variable, ("namespace", "deployment"))]},
        "panels": [_panel(at, panel) for at, panel in enumerate(panels)],
    }
    return json.dumps(made, indent=1) + "\n"


def _source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _variable(label: str) -> dict[str, Any]:
    metric = {"namespace": "fourways_store_up", "deployment": "fourways_gateway_requests_total"}
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$source"},
        "query": f"label_values({metric[label]}, {label})",
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


def _panel(at: int, panel: Panel) -> dict[str, Any]:
    place = {"x": at % COLUMNS * WIDTH, "y": at // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT}
    return {
        "id": at + 1,
        "title": panel.title,
        "type": panel.kind,
        "gridPos": place,
        "datasource": {"type": "prometheus", "uid": "$source"},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + index), "expr": query, "legendFormat": legend}
            | ({"instant": True, "format": "table"} if panel.kind == "table" else {})
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def main() -> int:
    """Write the dashboards, or with --check report whether they are up to date."""
    files = {FOLDER / f"{name}.json": rendered(name) for name in DASHBOARDS}
    if "--check" in sys.argv:
        return int(any(not f.exists() or f.read_text("utf-8") != t for f, t in files.items()))
    FOLDER.mkdir(exist_ok=True)
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
