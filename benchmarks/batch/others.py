"""The peers, each with its own environment."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.venvs import ROOT, python_of

SCRIPTS = Path(__file__).with_name("peers")
OURS = (ROOT / "crds", ROOT / "runtimes")
"""The parts of this repository that the image contains."""

_COMMON = ("onnxruntime==1.31.1", "numpy==2.4.6", "pyarrow==26.0.1")
_IMAGE = (
    "-c",
    "requirements.lock",
    "-r",
    "pyproject.toml",
    "--extra",
    "runtime",
    "--extra",
    "s3",
    "--extra",
    "delta",
    "--extra",
    "kafka",
    "--extra",
    "nats",
    "--extra",
    "edge",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: its name and its packages."""

    name: str
    title: str
    packages: tuple[str, ...]
    script: str
    to: str
    """Destination: parquet, store or nowhere."""

    @property
    def command(self) -> list[str]:
        """The path of its program, without arguments."""
        python = python_of(self.name, (*self.packages, *_COMMON))
        return [str(python), str(SCRIPTS / f"{self.script}.py")]


BARE = Peer("bare", "bare onnxruntime, one thread, the rows in memory", (), "bare", "nowhere")
PEERS = (
    Peer("polars", "Polars streaming + ORT", ("polars==2.1.0",), "polars_worker", "parquet"),
    Peer("duckdb", "DuckDB Arrow UDF + ORT", ("duckdb==2.0.1",), "duckdb_worker", "parquet"),
    Peer("dask", "Dask", ("dask[dataframe]==2026.8.0",), "dask_worker", "parquet"),
    Peer("pandas", "pandas", ("pandas==3.1.1",), "pandas_worker", "parquet"),
    Peer("ray", "Ray Data map_batches", ("ray[data]==2.60.0",), "ray_worker", "parquet"),
    Peer(
        "adbc",
        "batches of pyarrow + ADBC ingest",
        ("adbc-driver-postgresql==1.13.0", "adbc-driver-manager==1.13.0"),
        "adbc_postgres",
        "store",
    ),
    Peer(
        "pandas-store",
        "pandas + executemany",
        ("pandas==3.1.1", "psycopg[binary]==3.3.9"),
        "pandas_postgres",
        "store",
    ),
)


@cache
def image_python() -> Path:
    """Return a Python with the packages of the runtime's image (``runtimes/images/Dockerfile``)."""
    told = "".join((ROOT / name).read_text() for name in ("pyproject.toml", "requirements.lock"))
    python = python_of("image", _IMAGE, told)
    # The image has it installed, and so compiled.
    subprocess.run([python, "-m", "compileall", "-q", *OURS], check=True)
    return python
