"""How far a run is, in the terminal: a bar for all of it, and one for each worker.

Only shows what the store has recorded: rows that would survive a kill at this moment. Where the
output is no terminal, a line now and then.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

Json = dict[str, Any]

SAY_SECONDS = 5.0


class Watch:
    """Shows a run's progress for the length of the context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._said = float("-inf")
        self._last = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def show(self, progress: Json | None) -> None:
        """Show what the gateway tells; nothing while it has nothing to tell."""
        if progress is None:
            return
        if not self._console.is_terminal:
            self._say(line_of(progress))
            return
        total = progress["total_rows"]
        self._bar("all", progress["rows"], total, line_of(progress))
        workers = progress["workers"]
        for worker in workers if len(workers) > 1 else ():
            gone = "" if worker["alive"] else ", gone"
            text = f"{worker['rows']:,} rows, {_rate(worker['rows_per_second'])}{gone}"
            # A worker's share is not settled before: it is what nobody else has done.
            self._bar(str(worker["name"]), worker["rows"], total, text)

    def _bar(self, name: str, done: int, total: int | None, text: str) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total, text=text)
        self._progress.update(self._bars[name], completed=done, total=total, text=text)

    def _say(self, line: str) -> None:
        now = time.monotonic()
        if line != self._last and now - self._said >= SAY_SECONDS:
            self._said, self._last = now, line
            self._console.print(line)


def line_of(progress: Json) -> str:
    """Return a run's progress in one line."""
    rows, total = progress["rows"], progress["total_rows"]
    of = f" of {total:,}" if total is not None else ""
    parts = [f"{rows:,}{of} rows", _rate(progress["rows_per_second"])]
    if progress["rejects"]:
        parts.append(f"{progress['rejects']:,} refused")
    if progress.get("state", "scoring") != "scoring":
        parts.append(str(progress["state"]))
    elif progress.get("eta_seconds") is not None:
        parts.append(f"{duration(progress['eta_seconds'])} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time span as people say it: 1h 2m, 3m 4s, 5s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {whole % 60}s" if minutes else f"{whole}s"


def _rate(rows_per_second: float) -> str:
    return f"{rows_per_second:,.0f} rows/s"
