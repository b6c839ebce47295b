"""Reads an MLflow model folder: the file of its flavour, its signature and its input example.

Only ``MLmodel`` and the example are read here, as YAML and JSON; the model's own file is left to
its loader. Source of the format: https://mlflow.org/docs/latest/ml/model/
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from .errors import NoManifest
from .sample import Sample

_FLAVOURS = (
    ("onnx", "data"),
    ("xgboost", "data"),
    ("lightgbm", "data"),
    ("sklearn", "pickled_model"),
)
"""Flavours whose file may be one that is served, and the field that names the file."""

_KINDS = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
}
MAX_BYTES = 4 * 2**20
"""Maximum size of ``MLmodel`` and of an input example."""


@dataclass(frozen=True, slots=True)
class MlflowFolder:
    """What a folder says."""

    file: Path
    columns: tuple[str, ...] = ()
    """Names of the columns, in order; empty if the signature is of tensors, or there is none."""

    kinds: dict[str, str] = field(default_factory=dict)
    """The contract's type of each column."""

    example: Sample | None = None


def read_mlflow(folder: Path) -> MlflowFolder:
    """Read an MLflow model folder. Raises NoManifest."""
    try:
        document = yaml.safe_load(_text(folder / "MLmodel"))
        flavours = dict(document["flavors"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        raise NoManifest(f"{folder / 'MLmodel'} is not MLflow's description of a model") from None
    file = _file(folder, flavours)
    columns = _signature(document.get("signature"))
    return MlflowFolder(
        file,
        tuple(name for name, _ in columns),
        {name: _KINDS[kind] for name, kind in columns if kind in _KINDS},
        _example(folder, document.get("saved_input_example_info")),
    )


def _file(folder: Path, flavours: dict[str, Any]) -> Path:
    for flavour, named in _FLAVOURS:
        if flavour not in flavours:
            continue
        name = (flavours[flavour] or {}).get(named)
        # A path that leaves the folder names a file that the folder's author does not own.
        if isinstance(name, str) and name and ".." not in Path(name).parts:
            found = folder / name
            if found.is_file() and not Path(name).is_absolute():
                return found
    known = ", ".join(name for name, _ in _FLAVOURS)
    raise NoManifest(
        f"the MLflow model in {folder} has the flavours {', '.join(map(str, flavours))[:200]}, and"
        f" no file of one that is served ({known}, the last saved with"
        " serialization_format='skops')"
    )


def _signature(said: Any) -> list[tuple[str, str]]:
    """Return name and type of each column; nothing for a signature of tensors."""
    try:
        columns = json.loads(said["inputs"])
        return [(str(each["name"]), str(each["type"])) for each in columns]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []


def _example(folder: Path, said: Any) -> Sample | None:
    try:
        path = folder / Path(said["artifact_path"]).name
        held = json.loads(_text(path))
        if said["type"] == "dataframe":
            columns = [str(name) for name in held["columns"]]
            cells = zip(*held["data"], strict=True)
            return Sample(pa.table({n: list(c) for n, c in zip(columns, cells, strict=True)}))
        if said["type"] == "ndarray" and isinstance(held, list):
            matrix = np.asarray(held)
            if matrix.ndim == 2:
                return Sample(pa.table({f"x{at}": matrix[:, at] for at in range(matrix.shape[1])}))
    except (KeyError, TypeError, ValueError, RecursionError, pa.ArrowException, NoManifest):
        pass
    return None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise NoManifest(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise NoManifest(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise NoManifest(f"{path} is not text") from None
