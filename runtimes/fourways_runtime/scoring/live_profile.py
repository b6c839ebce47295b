"""Counts the records that a permanent worker scores, over a sliding window, off the hot path.

The hot path only keeps references to what was scored, as long as there is room; another thread
counts them twice a second and makes room again. So the cost is bounded whatever the load, and under
high load the window holds a sample: the first records of each half second. The window consists of
slices, and is compared with the training profile each time that a slice is complete.

Pure: clocks are passed in, and whoever owns the object calls :meth:`LiveProfile.count`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic

import numpy as np

from fourways_api import DriftStatus, FieldDrift

from .columns import Array, Columns
from .drift import compare, summarised
from .profile import ProfileCounts, RecordProfiler, sample_of, taken

ROOM = 4096
"""Number of values that are kept until they are counted."""

SLICES = 12
"""Parts of a window."""

Block = Array | Callable[[], Array | None]
"""Rows (N, inputs) of numbers in the contract's order, or what returns them."""


def utc_now() -> datetime:
    """Return the time of the clock."""
    return datetime.now(UTC)


class RecordNotes:
    """Scored records, kept until they are counted, as long as there is room.

    :meth:`note_rows` and :meth:`note_columns` may run on any thread.
    """

    def __init__(self, profiler: RecordProfiler, names: Sequence[str]) -> None:
        """``names`` are the inputs in the order of a block."""
        self._profiler = profiler
        self._places = {name: at for at, name in enumerate(names)}
        self._inputs = [each.name for each in profiler.inputs]
        self._outputs = [each.name for each in profiler.outputs]
        self._width = max(1, len(names))
        self._room = ROOM
        self._blocks: list[tuple[Block, Columns]] = []
        self._columns: list[tuple[Columns, Columns, int]] = []

    @property
    def has_room(self) -> bool:
        """Whether records that are noted now are kept."""
        return self._room > 0

    def note_rows(self, rows: int, block: Block, outputs: Columns) -> None:
        """Keep rows that were scored, with their outputs (N,), until they are counted."""
        if self._room > 0:
            self._room -= rows * self._width
            self._blocks.append((block, outputs))

    def note_columns(self, inputs: Columns, outputs: Columns, rejects: int) -> None:
        """Keep columns (N,) that were scored, their outputs, and how many records were rejected."""
        if self._room > 0:
            some = {name: inputs[name] for name in self._inputs if name in inputs}
            self._room -= max(1, rejects, *map(len, some.values())) * self._width
            found = {name: outputs[name] for name in self._outputs if name in outputs}
            self._columns.append((some, found, rejects))

    def take(self) -> ProfileCounts:
        """Count what was kept, and make room again. Call it on one thread."""
        # References first: what arrives meanwhile is counted next time.
        blocks, self._blocks = self._blocks, []
        columns, self._columns = self._columns, []
        self._room = ROOM
        found = ProfileCounts()
        if blocks:
            self._count_blocks(blocks, found)
        for inputs, outputs, rejects in columns:
            self._add(inputs, outputs, rejects, found)
        return found

    def _count_blocks(self, blocks: list[tuple[Block, Columns]], to: ProfileCounts) -> None:
        found = [(block() if callable(block) else block, outputs) for block, outputs in blocks]
        known = [(block, outputs) for block, outputs in found if block is not None]
        if not known:
            return
        rows = np.concatenate([block for block, _ in known])
        inputs = {name: rows[:, self._places[name]] for name in self._inputs}
        outputs = {
            name: np.concatenate([np.asarray(columns[name]) for _, columns in known])
            for name in self._outputs
        }
        self._add(inputs, outputs, 0, to)

    def _add(self, inputs: Columns, outputs: Columns, rejects: int, to: ProfileCounts) -> None:
        rows = max((len(values) for values in (*inputs.values(), *outputs.values())), default=0)
        which = sample_of(rows, max(1, ROOM // self._width))
        if which is None:
            to.add(self._profiler.count(inputs, outputs, rejects=rejects))
            return
        some = {name: each for name, each in outputs.items() if len(each) == rows}
        weight = rows / len(which)
        found = self._profiler.count(taken(inputs, which), taken(some, which))
        found.rejects = rejects / weight
        to.add(found)


class LiveProfile(RecordNotes):
    """The counts of a window, compared with the training profile."""

    def __init__(
        self,
        profiler: RecordProfiler,
        names: Sequence[str],
        *,
        window: float,
        max_drift: float,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``names`` are the inputs in the order of a block, ``window`` is in seconds."""
        super().__init__(profiler, names)
        self._window = window
        self._max_drift = max_drift
        self._clock = clock
        self._now = now
        self._slices: deque[tuple[float, ProfileCounts]] = deque()
        self._slice, self._began = ProfileCounts(), clock()
        self.fields: tuple[FieldDrift, ...] = ()
        """The last comparison of each field."""

        self.status: DriftStatus | None = None
        """The last comparison, in short; None before the first one and if nothing was scored."""

    def count(self) -> None:
        """Count what was kept, and compare if a slice is complete. Call it on one thread."""
        self._slice.add(self.take())
        if self._clock() - self._began >= self._window / SLICES:
            self._end_slice()

    def _end_slice(self) -> None:
        now = self._clock()
        self._slices.append((now, self._slice))
        self._slice, self._began = ProfileCounts(), now
        while self._slices and self._slices[0][0] <= now - self._window:
            self._slices.popleft()
        whole = ProfileCounts()
        for _, counts in self._slices:
            whole.add(counts)
        self.fields = compare(self._profiler, whole, self._max_drift)
        self.status = summarised(self.fields, whole, self._now())
