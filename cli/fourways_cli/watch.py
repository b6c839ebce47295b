"""The progress of a run in the terminal: a bar for the whole run, and one for each worker.

It shows only what the store has recorded: rows that would survive a kill at this moment. If the
output is not a terminal, it prints a line at intervals.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fourways_api.display import displayed

from .terminal import NAME_LIMIT, say

Json = dict[str, Any]

LINE_SECONDS = 5.0


class RunProgressBars:
    """Shows a run's progress while its context is open."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            # Names of workers are foreign text: neither column may parse markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._printed_at = float("-inf")
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
        """Show the progress that the gateway reports; None changes nothing."""
        if progress is None:
            return
        if not self._console.is_terminal:
            self._print(line_of(progress))
            return
        total = progress["total_rows"]
        self._bar("all", progress["rows"], total, line_of(progress))
        workers = progress["workers"]
        for worker in workers if len(workers) > 1 else ():
            gone = "" if worker["alive"] else ", gone"
            text = f"{worker['rows']:,} rows, {_rate(worker['rows_per_second'])}{gone}"
            # Workers claim chunks as they go, so any of them may score up to all rows.
            self._bar(str(worker["name"]), worker["rows"], total, text)

    def _bar(self, name: str, done: int, total: int | None, text: str) -> None:
        text = displayed(text, NAME_LIMIT)
        if name not in self._bars:
            shown = displayed(name, NAME_LIMIT)
            self._bars[name] = self._progress.add_task(shown, total=total, text=text)
        self._progress.update(self._bars[name], completed=done, total=total, text=text)

    def _print(self, line: str) -> None:
        now = time.monotonic()
        if line != self._last and now - self._printed_at >= LINE_SECONDS:
            self._printed_at, self._last = now, line
            say(line)


def line_of(progress: Json) -> str:
    """Return a run's progress on one line."""
    rows, total = progress["rows"], progress["total_rows"]
    of = f" of {total:,}" if total is not None else ""
    parts = [f"{rows:,}{of} rows", _rate(progress["rows_per_second"])]
    if progress["rejects"]:
        parts.append(f"{progress['rejects']:,} rejected")
    if progress.get("state", "scoring") != "scoring":
        parts.append(str(progress["state"]))
    elif progress.get("eta_seconds") is not None:
        parts.append(f"{duration(progress['eta_seconds'])} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a duration in readable form: 1h 2m, 3m 4s, 5s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {whole % 60}s" if minutes else f"{whole}s"


def _rate(rows_per_second: float) -> str:
    return f"{rows_per_second:,.0f} rows/s"
