"""Complete ``examples/artifacts``: what ``make demo`` runs before ``fourways up``.

Needs numpy, pyarrow and the installed package magika, none of the training dependencies. The
churn and sales files are in the repository; magika's model (3 MB) is copied out of its package
and the table of files is made from this machine's. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from training import magika_package
from training.artifacts import ARTIFACTS, differing, pinned, sha256
from training.file_bytes import HALF, tokens
from training.real_files import by_kind


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--artifacts", type=Path, default=ARTIFACTS, help="complete another copy of the folder"
    )
    artifacts: Path = parser.parse_args().artifacts
    prepare_file_type(artifacts / "file-type")
    problems = [
        problem
        for name in ("churn", "sales-forecast", "file-type")
        for problem in differing(name, artifacts)
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def prepare_file_type(folder: Path) -> None:
    """Put magika's model and a table of real files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.onnx"
    if not model.is_file() or sha256(model) != pinned("file-type")["file-type/model.onnx"]:
        _replace(model, lambda new: shutil.copyfile(magika_package.model(), new))
    table = folder / "source.parquet"
    if not table.is_file():
        _replace(table, lambda new: pq.write_table(file_table(), new, compression="zstd"))


def file_table() -> pa.Table:
    """Return a row a file: its name, and its first and last bytes as the model reads them."""
    names, contents = [], []
    for name, path in by_kind().items():
        try:
            content = tokens(path)
        except OSError as error:
            print(f"left out {name}: {error}", file=sys.stderr)
            continue
        if content is not None:
            names.append(name)
            contents.append(content)
    values = pa.array(np.concatenate(contents))
    return pa.table({"file": names, "content": pa.FixedSizeListArray.from_arrays(values, 2 * HALF)})


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole: whoever reads it meanwhile sees the old one or the new one."""
    new = path.with_name(path.name + ".new")
    write(new)
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
