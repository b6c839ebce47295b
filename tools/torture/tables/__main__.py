"""``python -m tools.torture.tables``: write the whole corpus, read it, and compare.

The peers' libraries (Polars, DuckDB, fastparquet) are in an environment of their own, which is
created once. Exits with 1 and names the cells if one is not right.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tools.venvs import python_of

from .corpus import main

PEERS = (
    "polars==2.1.0",
    "duckdb==2.0.1",
    "fastparquet==2026.9.0",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fourways-tables-") as folder:
        sys.exit(1 if main(python_of("tables", PEERS), Path(folder)) else 0)
