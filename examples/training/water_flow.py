"""Is this reading of a flow meter normal? Two months of a real water main.

Data: ``water-flow.csv`` as included in the package ``river``: hourly readings in litres per second
of a branch of a pipeline in Italy, March to May 2022, provided by Tecnojest s.r.l. River's
description names four anomalies: almost no water three times, and one small peak after the second.

The expected flow is the median of the previous 72 readings (which an outage of a day and a half
does not move) plus the usual offset for the hour of the day. The score is the distance from it, in
robust standard deviations. Offsets and deviation are medians of the first four weeks, anomalies
included, because they were not labelled.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from .artifacts import FLOAT32, Vector, plain, write_golden

NAME = "water-flow"
EXPORTED = RETRAINED = FLOAT32

WINDOW = 72
LEARN_READINGS = 4 * 7 * 24
THRESHOLD = 6.0
"""Score, in robust standard deviations, from which a reading is labelled strange."""

MAD_TO_DEVIATION = 1.4826
"""Factor from median absolute deviation to standard deviation, for a normal distribution."""

LABELS = ("normal", "strange")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings that have a complete window before them."""

    moments: Sequence[datetime]
    hour: NDArray[np.int32]
    """Hour of the day, local time."""

    flow: Floats
    before: Floats
    """The previous readings, (readings, WINDOW), in litres per second."""

    def part(self, rows: slice | list[int]) -> Readings:
        """Return some of the readings."""
        moments = self.moments[rows] if isinstance(rows, slice) else [self.moments[i] for i in rows]
        return Readings(moments, self.hour[rows], self.flow[rows], self.before[rows])


@dataclass(frozen=True, slots=True)
class Expectation:
    """The trained parameters: the offset of each hour, and the usual deviation of readings."""

    offsets: Floats
    deviation: float

    def expected(self, readings: Readings) -> Floats:
        """Return the expected flow."""
        return np.median(readings.before, axis=1) + self.offsets[readings.hour]

    def score(self, readings: Readings) -> Floats:
        """Return the distance of each reading in robust standard deviations."""
        return np.abs(readings.flow - self.expected(readings)) / self.deviation


def build(folder: Path) -> None:
    """Train, print the anomalies found, and write model, events and golden vectors."""
    moments, flow = series()
    readings = windows(moments, flow)
    model = learn(readings.part(slice(LEARN_READINGS)))
    judge(model, readings)
    export(model, folder / "model.onnx")
    write_series(moments, flow, folder / "series.parquet")
    write_golden(folder / "golden.jsonl", golden(model, readings))


def series() -> tuple[list[datetime], Floats]:
    """Return the times and flows (l/s) of the package's file."""
    file = Path(str(distribution("river").locate_file("river/datasets/water-flow.csv")))
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))[1:]
    return [datetime.fromisoformat(moment) for moment, _ in rows], np.array(
        [float(value) for _, value in rows]
    )


def windows(moments: Sequence[datetime], flow: Floats) -> Readings:
    """Return each reading with the previous ones, as the meter's gateway sends them."""
    before = np.lib.stride_tricks.sliding_window_view(flow, WINDOW)[:-1]
    hours = np.array([m.hour for m in moments[WINDOW:]], np.int32)
    return Readings(moments[WINDOW:], hours, flow[WINDOW:], before)


def learn(readings: Readings) -> Expectation:
    """Compute medians: an anomaly of some hours in four weeks does not move them."""
    rest = readings.flow - np.median(readings.before, axis=1)
    offsets = np.array([np.median(rest[readings.hour == hour]) for hour in range(24)])
    errors = np.abs(rest - offsets[readings.hour])
    # float32, as the model stores them
    deviation = float(np.float32(MAD_TO_DEVIATION * np.median(errors)))
    return Expectation(offsets.astype(np.float32).astype(float), deviation)


def judge(model: Expectation, readings: Readings) -> None:
    """Print each anomaly, and whether it was in the training data."""
    strange = model.score(readings) > THRESHOLD
    print(f"{len(readings.flow)} readings, {strange.sum()} strange, 1 in {1 / strange.mean():.0f}")
    starts = np.flatnonzero(strange & ~np.roll(strange, 1))
    for start in starts:
        length = int(np.argmin(strange[start:])) or len(strange) - start
        stretch = readings.flow[start : start + length]
        when = "learned from" if start < LEARN_READINGS else "held out"
        print(
            f"{readings.moments[start]:%Y-%m-%d %H:%M} {length} h, "
            f"{stretch.min():.0f} to {stretch.max():.0f} l/s ({when})"
        )


def export(model: Expectation, path: Path) -> None:
    """Write median, offsets and score as one ONNX graph."""
    graph = parser.parse_graph(
        """
        water_flow (int32[N] hour, float[N] flow, float[N, 72] before)
            => (float[N] expected, float[N] score, int64[N] label) {
            upper, places = TopK <axis = 1, largest = 1, sorted = 1> (before, upper_half)
            middle = Slice (upper, middle_start, middle_end, columns)
            level = ReduceMean <axes = [1], keepdims = 0> (middle)
            offset = Gather (offsets, hour)
            expected = Add (level, offset)
            error = Sub (flow, expected)
            distance = Abs (error)
            score = Div (distance, deviation)
            strange = Greater (score, threshold)
            label = Cast <to = 7> (strange)
        }
        """
    )
    half = WINDOW // 2
    constants = {
        "upper_half": np.array([half + 1], np.int64),
        "middle_start": np.array([half - 1], np.int64),
        "middle_end": np.array([half + 1], np.int64),
        "columns": np.array([1], np.int64),
        "offsets": model.offsets.astype(np.float32),
        "deviation": np.array(model.deviation, np.float32),
        "threshold": np.array(THRESHOLD, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    onnx_model = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    onnx.checker.check_model(onnx_model, full_check=True)
    path.write_bytes(onnx_model.SerializeToString())


def key(moment: datetime) -> str:
    """Return the entity key of a reading, its hour in UTC, such as ``2022-04-27T15Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%HZ}"


def write_series(moments: Sequence[datetime], flow: Floats, path: Path) -> None:
    """Write the series: key, hour and flow. An event is a row with the 72 flows before it."""
    table = pa.table(
        {
            "reading": [key(m) for m in moments],
            "hour": pa.array([m.hour for m in moments], pa.int32()),
            "flow": pa.array(flow, pa.float32()),
        }
    )
    pq.write_table(table, path, compression="zstd")


def golden(model: Expectation, readings: Readings) -> list[Vector]:
    """Return 20 readings, half of them strange, scored by numpy; none near the threshold."""
    score = model.score(readings)
    apart = np.abs(score - THRESHOLD) > 0.5
    chosen: list[int] = []
    for strange in (False, True):
        rows = np.flatnonzero(((score > THRESHOLD) == strange) & apart)
        chosen += rows[np.linspace(0, len(rows) - 1, 10).astype(int)].tolist()
    some = readings.part(sorted(chosen))
    triples = zip(model.expected(some), model.score(some), strict=True)
    return [
        {
            "inputs": {
                "hour": int(some.hour[row]),
                "flow": plain(some.flow[row]),
                "before": [plain(value) for value in some.before[row]],
            },
            "outputs": {
                "expected": plain(expected),
                "score": plain(value),
                "label": LABELS[int(value > THRESHOLD)],
            },
        }
        for row, (expected, value) in enumerate(triples)
    ]


def answers(outputs: dict[str, NDArray[np.generic]]) -> list[dict[str, object]]:
    """Turn what onnxruntime returns into the contract's outputs."""
    columns = (outputs[name].tolist() for name in ("expected", "score", "label"))
    return [
        {"expected": expected, "score": score, "label": LABELS[int(label)]}
        for expected, score, label in zip(*columns, strict=True)
    ]


def tensors(vectors: list[Vector]) -> dict[str, NDArray[np.generic]]:
    """Turn golden inputs into the model's tensors."""
    return {
        name: np.array([v["inputs"][name] for v in vectors], kind)
        for name, kind in {"hour": np.int32, "flow": np.float32, "before": np.float32}.items()
    }
