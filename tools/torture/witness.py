"""What a store has recorded of chaos runs, and the invariants that must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fourways_runtime.io.store.database import quoted, table

Rows = list[tuple[Any, ...]]
Outcome = tuple[Rows, Rows]
"""A run's predictions and its rejects."""


class Broken(Exception):
    """An invariant is violated."""


class Asks(Protocol):
    """The database to query, or a function that opens it again after a restart."""

    def rows(self, query: str, values: Sequence[Any] = ()) -> Rows:
        """Return the rows of a query. Raises StoreUnavailable."""
        ...


@dataclass
class Witness:
    """Checks the runs of a deployment."""

    data: Asks
    namespace: str
    deployment: str
    recorded: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """Chunks of the present run that were seen as recorded, with their contents."""

    def begin(self) -> None:
        """Check another run from now on."""
        self.recorded = {}

    def outcome(self, run: str, elsewhere: Rows | None = None) -> Outcome:
        """Return a published run's predictions, sorted by key, and its rejects, by position.

        ``elsewhere`` are its predictions if they are not in the store.
        """
        ((view, run_id, state, said),) = self.data.rows(
            "SELECT table_name, id, state, rows FROM @runs WHERE namespace = ? AND "
            "deployment = ? AND name = ?",
            (self.namespace, self.deployment, run),
        )
        if state != "published":
            raise Broken(f"run {run} is {state}")
        rows = elsewhere
        if rows is None:
            rows = self.data.rows(f"SELECT * FROM {table(view)} ORDER BY {quoted('id')}")  # noqa: S608
        if len(rows) != said:
            raise Broken(f"run {run} reports {said} rows but has {len(rows)}")
        rejects = self.data.rows(
            "SELECT position, key, field, reason FROM @rejects WHERE run_id = ? "
            "ORDER BY position, reason",
            (run_id,),
        )
        return rows, rejects

    def compare(self, run: str) -> None:
        """Check that a recorded chunk was not changed again."""
        found = self.data.rows(
            "SELECT c.number, c.owner, c.attempts, c.done_at, c.rows, c.predictions, c.rejects, "
            "c.receipt FROM @chunks c JOIN @runs r ON r.id = c.run_id WHERE r.namespace = ? AND "
            "r.deployment = ? AND r.name = ? AND c.state = 'done'",
            (self.namespace, self.deployment, run),
        )
        now = {number: tuple(rest) for number, *rest in found}
        for number, was in self.recorded.items():
            if now.get(number) != was:
                raise Broken(f"chunk {number} was recorded as {was}, and is {now.get(number)}")
        self.recorded = now


def check_equal(calm: Outcome, wild: Outcome) -> None:
    """Check that two runs are equal, bit by bit. Raises Broken."""
    for what, was, now in zip(("predictions", "rejects"), calm, wild, strict=True):
        if was != now:
            differing = set(was) ^ set(now)
            example = next(iter(differing), "a row that is there twice")
            raise Broken(f"{what}: {len(differing)} differ, such as {example}")
