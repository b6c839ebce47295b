"""How deployments and predictions are shown to people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from .watch import duration, line_of

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
            _rows_of(run),
            status.get("nextRun", ""),
            conditions_of(status),
        )
    return table


def _rows_of(run: Json) -> str:
    """Return the rows a run published, or how far it is."""
    progress = run.get("progress")
    if progress is None:
        return str(run.get("rows", ""))
    line = line_of(
        {
            "rows": progress["rows"],
            "total_rows": progress.get("totalRows"),
            "rows_per_second": progress["rowsPerSecond"],
            "rejects": progress["rejects"],
        }
    )
    due = progress.get("estimatedCompletion")
    return f"{line}, done at about {due[11:19]}" if due else line


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
            answer.get("computed_at", "now"),
        )
    return table


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def runs_table(runs: list[Json]) -> Table:
    """Return a table of runs, a row each; answers come from the one that is marked."""
    table = Table(
        "Run",
        "State",
        "Started",
        "Took",
        "Rows",
        "Carried over",
        "Rejects",
        "Version",
        "Answers",
        Column("Why", overflow="fold"),
        box=None,
    )
    for run in runs:
        table.add_row(
            run["name"],
            run["state"],
            _moment(run["started_at"]),
            _took(run["started_at"], run["published_at"]),
            f"{run['rows']:,}",
            f"{run['carried']:,}" if run["kind"] != "full" else "",
            f"{run['rejects']:,}",
            run["version"],
            "[green]current[/green]" if run["current"] else "",
            escape(f"{run['reason']}: {run['message']}") if run["reason"] else "",
        )
    return table


def difference_table(before: str, after: str, difference: Json) -> Table:
    """Return what two runs differ in, as a table."""
    table = Table("", before, after, box=None)
    common = difference["common"]
    table.add_row(
        "keys", f"{common + difference['only_before']:,}", f"{common + difference['only_after']:,}"
    )
    table.add_row("keys only here", *(f"{difference[f'only_{s}']:,}" for s in ("before", "after")))
    changed = difference["changed"]
    share = f" ({changed / common:.1%} of {common:,})" if common else ""
    table.add_row("other prediction", "", f"{changed:,}{share}")
    for output, shift in difference["shifts"].items():
        table.add_row(f"mean {output}", *(_mean(shift[side]) for side in ("before", "after")))
    return table


def rejects_table(rejects: list[Json]) -> Table:
    """Return a table of refused rows."""
    table = Table("Row", "Key", "Field", "Reason", box=None)
    for reject in rejects:
        key = "" if reject["key"] is None else str(reject["key"])
        table.add_row(str(reject["row"]), *map(escape, (key, reject["field"], reject["reason"])))
    return table


def _mean(value: float | None) -> str:
    return "" if value is None else _shown(value)


def _moment(text: str) -> str:
    return text[:19].replace("T", " ")


def _took(started: str, ended: str | None) -> str:
    if ended is None:
        return ""
    return duration(
        (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    )
