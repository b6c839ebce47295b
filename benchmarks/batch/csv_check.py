"""What the search for damage costs when CSV is read: ``python -m benchmarks.batch.csv_check``.

Prints, for tables with few and with many quotes, the processor time without the check relative to
that with it, for reading alone and with decoding. Both take turns in one process; the best counts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_runtime.io.sources import csv_table, open_table
from fourways_runtime.scoring.decode import Decoder

ROWS, COLUMNS, ROUNDS = 400_000, 10, 5
QUOTING: Any = {"no quotes": "none", "quoted texts": "needed", "everything quoted": "all_valid"}
CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [
            *({"name": f"f{n}", "type": "float64"} for n in range(COLUMNS)),
            {"name": "plan", "type": "string"},
        ],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)


class Unchecked:
    """Stands for the check, and checks nothing."""

    def __init__(self, stream: Any, file: str) -> None:
        self.stream = stream

    def parsed(self, batches: int, records: int) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


def _write(path: Path, quoting: Any) -> None:
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {"id": [f"c{row:08}" for row in range(ROWS)]}
    for n in range(COLUMNS):
        columns[f"f{n}"] = rng.normal(size=ROWS).round(5)
    columns["plan"] = [f"plan {row % 7}" for row in range(ROWS)]
    arrow_csv.write_csv(pa.table(columns), path, arrow_csv.WriteOptions(quoting_style=quoting))


def _seconds(path: Path, decode: bool) -> float:
    source = BatchSource.model_validate({"uri": f"file://{path}", "format": "CSV"})
    decoder = Decoder(CONTRACT)
    begun = time.process_time()
    table = open_table(source, CONTRACT, policy=FetchPolicy(), paths=Paths())
    for chunk in table.chunks():
        if decode:
            decoder.decode(chunk.batch, chunk.rows)
    return time.process_time() - begun


def main() -> None:
    """Measure, and print a line per table."""
    module: Any = csv_table
    checked, opened = module.CheckedFile, module._open

    def unchecked(file: Any, *more: Any) -> Any:
        return opened(file.stream, *more)

    with tempfile.TemporaryDirectory() as folder:
        for name, quoting in QUOTING.items():
            path = Path(folder) / "t.csv"
            _write(path, quoting)
            for what in ("reading", "reading and decoding"):
                best = {"with": 1e9, "without": 1e9}
                for _ in range(ROUNDS):
                    for which in best:
                        ours = which == "with"
                        module.CheckedFile = checked if ours else Unchecked
                        module._open = opened if ours else unchecked
                        seconds = _seconds(path, what != "reading")
                        best[which] = min(best[which], seconds)
                print(f"{name}, {what}: {best['without'] / best['with']:.3f}")


if __name__ == "__main__":
    main()
