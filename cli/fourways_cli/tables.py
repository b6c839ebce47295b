"""Display deployments, runs and predictions to people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .terminal import Heading, Part, table, words
from .watch import duration, line_of

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Json = dict[str, Any]

_OF_RUNS = ("Last run", "Rows", "Next run")

NAMED_INPUTS = 3
"""Number of inputs that the command to ask a deployment names."""


def conditions_of(status: Json) -> Text:
    """Return a status on one line: what it is ready for, or what prevents that."""
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    # By message, since one cause may be the message of several conditions.
    lines: dict[str, tuple[str, str]] = {}
    for kind, bad in (("SpecValid", "False"), ("Degraded", "True"), ("Ready", None)):
        condition = conditions.get(kind)
        if condition and (bad is None or condition["status"] == bad):
            ready = condition["status"] == "True" and bad is None
            word = "Ready" if ready else condition["reason"]
            lines.setdefault(condition["message"], (word, "green" if ready else ""))
    parts: list[Part] = []
    for message, (word, style) in lines.items():
        parts += [*(["; "] if parts else []), (word, style), f": {message}"]
    return words(*parts)


def deployments_table(
    documents: list[Json], *, wide: bool = False, namespaces: bool = False
) -> Table:
    """Return a table of deployments, one per row; ``wide`` adds address and model digest."""
    headings: list[Heading | str] = [
        *([Heading("Namespace", copied=True)] if namespaces else []),
        Heading("Name", copied=True),
        "Mode",
        "Ready",
        "Version",
        "Last run",
        "Rows",
        "Next run",
        *(["Address", "Digest"] if wide else []),
        "Why",
    ]
    rows = [_deployment(d, wide, namespaces) for d in documents]
    # Runs are of batch deployments only, and a narrow terminal has no room for empty columns.
    kept = [
        at for at, title in enumerate(headings) if title not in _OF_RUNS or any(r[at] for r in rows)
    ]
    return table([headings[at] for at in kept], [[row[at] for at in kept] for row in rows])


def facts_of(document: Json) -> dict[str, str]:
    """Return the facts of a deployment that are one line each, by title."""
    status, spec = document.get("status") or {}, document.get("spec") or {}
    model = {**(spec.get("model") or {}), **(status.get("model") or {})}
    run, published = status.get("lastRun") or {}, status.get("lastPublished") or {}
    facts = {
        "Mode": status.get("mode") or spec.get("mode", "auto"),
        "Why": status.get("modeReason", ""),
        "Model": model.get("uri", ""),
        "Version": model.get("version", ""),
        "Digest": model.get("digest", ""),
        "Address": status.get("address", ""),
        "Last run": f"{run.get('name', '')} {run.get('outcome', '')} {_rows_of(run)}".strip(),
        "Answers from": str(published.get("name", "")),
        "Next run": status.get("nextRun", ""),
        "Next step": next_step(document),
    }
    return {title: str(text) for title, text in facts.items() if text}


def next_step(document: Json) -> str:
    """Return the command to ask a deployment that is ready; empty if it is not, or takes none."""
    status, spec = document.get("status") or {}, document.get("spec") or {}
    if not is_ready(document):
        return ""
    name, mode = document["metadata"]["name"], status.get("mode")
    inputs = (spec.get("contract") or {}).get("inputs") or []
    given = "".join(f" --input {field['name']}=VALUE" for field in inputs[:NAMED_INPUTS])
    more = " …" if len(inputs) > NAMED_INPUTS else ""
    return {
        "batch": f"fourways predict {name} KEY",
        "realtime": f"fourways predict {name} KEY{given}{more}",
        "streaming": f"fourways predict {name} KEY{given}{more}",
    }.get(str(mode), "")


def is_ready(document: Json) -> bool:
    """Tell whether a deployment is ready, in its present generation."""
    metadata, status = document["metadata"], document.get("status") or {}
    ready: Json = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    generations = {metadata.get("generation"), ready.get("observedGeneration"), None}
    return ready.get("status") == "True" and len(generations) <= 2


def conditions_table(conditions: list[Json]) -> Table:
    """Return a table of conditions."""
    return table(
        ("Condition", "Status", "Reason", "Since", "Message"),
        [
            (
                each["type"],
                each["status"],
                each.get("reason", ""),
                _moment(each.get("lastTransitionTime", "")),
                each.get("message", ""),
            )
            for each in conditions
        ],
    )


def events_table(events: list[Json]) -> Table:
    """Return a table of events."""
    return table(
        ("When", "Type", "Reason", Heading("Object", copied=True), "Times", "Message"),
        [
            (
                _moment(each["time"]),
                (each["type"], "yellow" if each["type"] == "Warning" else ""),
                each["reason"],
                each["object"],
                str(each["count"]),
                each["message"],
            )
            for each in events
        ],
    )


def pods_table(pods: list[Json]) -> Table:
    """Return a table of pods."""
    from fourways_operator.pods import is_ready as is_pod_ready

    rows: list[list[Part]] = []
    for pod in pods:
        status = pod.get("status") or {}
        states = status.get("containerStatuses") or []
        restarts = sum(int(each.get("restartCount", 0)) for each in states)
        rows.append(
            [
                pod["metadata"]["name"],
                status.get("phase", ""),
                "yes" if is_pod_ready(pod) else "no",
                str(restarts),
                _moment(str(pod["metadata"].get("creationTimestamp", ""))),
                "; ".join(filter(None, map(_wait_of, states))),
            ]
        )
    headings = (Heading("Pod", copied=True), "Phase", "Ready", "Restarts", "Created", "Waits")
    return table(headings, rows)


def _wait_of(container: Json) -> str:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))


def _deployment(document: Json, wide: bool, namespaces: bool) -> list[Part]:
    status = document.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    run, model = status.get("lastRun") or {}, status.get("model") or {}
    name, namespace = document["metadata"]["name"], namespace_of(document)
    return [
        *([namespace] if namespaces else []),
        name,
        status.get("mode", ""),
        conditions.get("Ready", {}).get("status", "Unknown"),
        model.get("version", ""),
        f"{run.get('outcome', '')} {run.get('finishedAt', '')}".strip(),
        _rows_of(run),
        status.get("nextRun", ""),
        *([status.get("address", ""), model.get("digest", "")] if wide else []),
        conditions_of(status),
    ]


def namespace_of(document: Mapping[str, Any]) -> str:
    """Return an object's namespace."""
    return str(document["metadata"].get("namespace", "default"))


def _rows_of(run: Json) -> str:
    """Return the number of rows that a run published, or its progress."""
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
    """Return a table of predictions, one per row."""
    headings = ("Deployment", Heading("Key", copied=True), "Prediction", "Version", "Computed at")
    return table(
        headings,
        [
            (
                answer["deployment"],
                str(answer["key"]),
                ", ".join(f"{k}={_value(v)}" for k, v in answer["outputs"].items()),
                answer["version"],
                answer.get("computed_at", "now"),
            )
            for answer in answers
        ],
    )


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def runs_table(runs: list[Json], *, wide: bool = False) -> Table:
    """Return a table of runs, one per row; "current" marks the run that serves predictions.

    ``wide`` adds version and model digest. If there are incremental runs, a column has the rows
    carried over from the previous run.
    """
    carried = any(run["kind"] != "full" for run in runs)
    headings: list[Heading | str] = [
        Heading("Run", copied=True),
        "State",
        "Started",
        "Took",
        "Rows",
        *(["Carried over"] if carried else []),
        "Rejects",
        *(["Version", "Digest"] if wide else []),
        "Answers",
        "Why",
    ]
    return table(headings, [_run(run, wide, carried) for run in runs])


def _run(run: Json, wide: bool, carried: bool) -> list[Part]:
    rows_carried = f"{run['carried']:,}" if run["kind"] != "full" else ""
    return [
        run["name"],
        run["state"],
        _moment(run["started_at"]),
        _took(run["started_at"], run["published_at"]),
        f"{run['rows']:,}",
        *([rows_carried] if carried else []),
        f"{run['rejects']:,}",
        *([run["version"], run.get("digest", "")] if wide else []),
        ("current", "green") if run["current"] else "",
        f"{run['reason']}: {run['message']}" if run["reason"] else "",
    ]


def difference_table(before: str, after: str, difference: Json) -> Table:
    """Return a table of the differences between two runs."""
    common, changed = difference["common"], difference["changed"]
    share = f" ({changed / common:.1%} of {common:,})" if common else ""
    counts = {side: f"{difference[f'only_{side}']:,}" for side in ("before", "after")}
    keys = [f"{common + difference[f'only_{side}']:,}" for side in ("before", "after")]
    rows: list[tuple[str, str, str]] = [
        ("keys", keys[0], keys[1]),
        ("keys only here", counts["before"], counts["after"]),
        ("different prediction", "", f"{changed:,}{share}"),
    ]
    for output, shift in difference["shifts"].items():
        rows.append((f"mean {output}", _mean(shift["before"]), _mean(shift["after"])))
    return table(("", Heading(before, copied=True), Heading(after, copied=True)), rows)


def rejects_table(rejects: list[Json]) -> Table:
    """Return a table of rejected rows."""
    return table(
        ("Row", Heading("Key", copied=True), "Field", "Reason"),
        [
            (
                str(reject["row"]),
                "" if reject["key"] is None else str(reject["key"]),
                reject["field"],
                reject["reason"],
            )
            for reject in rejects
        ],
    )


def stored_table(stored: list[Json]) -> Table:
    """Return a table of what the store holds, by uid."""
    return table(
        (Heading("Uid", copied=True), "Since", "Runs", "Predictions", "Of streams", "Dead letters"),
        [
            (
                data["uid"] or "none",
                _moment(data.get("since", "")),
                *(f"{data.get(key, 0):,}" for key in ("runs", "rows", "live", "deadLetters")),
            )
            for data in stored
        ],
    )


def _mean(value: float | None) -> str:
    return "" if value is None else _value(value)


def _moment(text: str) -> str:
    return text[:19].replace("T", " ")


def _took(started: str, ended: str | None) -> str:
    if ended is None:
        return ""
    return duration(
        (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    )
