"""How deployments and predictions are shown to people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

Json = dict[str, Any]


def conditions_of(status: Json) -> str:
    """Return a status as one line: what it is ready for, or what is in the way."""
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    parts = []
    for kind, bad in (("SpecValid", "False"), ("Degraded", "True"), ("Ready", None)):
        condition = conditions.get(kind)
        if condition and (bad is None or condition["status"] == bad):
            mark = "[green]Ready[/green]" if condition["status"] == "True" and bad is None else None
            parts.append(f"{mark or condition['reason']}: {condition['message']}")
    return "; ".join(dict.fromkeys(parts))


def deployments_table(documents: list[Json]) -> Table:
    """Return a table of deployments, a row each."""
    table = Table(
        "Name", "Mode", "Ready", "Version", "Last run", "Rows", "Next run", "Why", box=None
    )
    for document in documents:
        status = document.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        run = status.get("lastRun") or {}
        table.add_row(
            document["metadata"]["name"],
            status.get("mode", ""),
            conditions.get("Ready", {}).get("status", "Unknown"),
            (status.get("model") or {}).get("version", ""),
            f"{run.get('outcome', '')} {run.get('finishedAt', '')}".strip(),
            str(run.get("rows", "")),
            status.get("nextRun", ""),
            conditions_of(status),
        )
    return table


def prediction_table(answers: list[Json]) -> Table:
    """Return a table of predictions, a row each."""
    table = Table("Deployment", "Key", "Prediction", "Version", "Computed at", box=None)
    for answer in answers:
        outputs = ", ".join(f"{k}={_shown(v)}" for k, v in answer["outputs"].items())
        table.add_row(
            answer["deployment"],
            str(answer["key"]),
            outputs,
            answer["version"],
            answer["computed_at"],
        )
    return table


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
