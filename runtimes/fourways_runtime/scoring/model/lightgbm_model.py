"""LightGBM models in its text format. Pickles are rejected."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from fourways_runtime.errors import ModelNotLoadable

from ..columns import Array
from .extras import TREES_WITHOUT, load_module
from .hints import Hints
from .library_errors import library_error
from .matrix_model import MatrixModel


def load_lightgbm(path: Path, *, threads: int) -> MatrixModel:
    """Load a model saved by ``Booster.save_model``. Raises ModelNotLoadable."""
    lightgbm = load_module("lightgbm", "lightgbm", without=TREES_WITHOUT)
    refusal = "the file is not a LightGBM text model; save it with booster_.save_model('model.txt')"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ModelNotLoadable(refusal) from None
    if text.partition("\n")[0].strip() != "tree":
        raise ModelNotLoadable(refusal)
    # LightGBM's reader does not check for the end: a truncated file loads with fewer trees.
    if "\nend of trees" not in text:
        raise ModelNotLoadable("the LightGBM model is truncated")
    try:
        booster = lightgbm.Booster(model_str=text)
        features = booster.num_feature()
    except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
        raise ModelNotLoadable(
            "lightgbm cannot load the model: it is damaged, or saved by a newer version "
            f"({library_error(error)})"
        ) from error

    def predict(matrix: Array) -> Array:
        return np.asarray(booster.predict(matrix, num_threads=threads))

    names = booster.feature_name()
    if all(re.fullmatch(r"Column_\d+", name) for name in names):
        names = []  # LightGBM's default names for the columns of a matrix
    return MatrixModel({"prediction": predict}, features=features, dtype="float64", columns=names)


def lightgbm_hints(path: Path) -> Hints:
    """Read objective, the ranges that training saw, and pandas categories of a model that loads."""
    head, _, tail = path.read_text(encoding="utf-8").partition("\nTree=")
    said = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
    names = said.get("feature_names", "").split(" ")
    ranges: dict[str, tuple[float, float]] = {}
    coded = []
    for name, info in zip(names, said.get("feature_infos", "").split(" "), strict=False):
        number = r"-?[\d.]+(?:e[+-]?\d+)?"
        seen = re.fullmatch(rf"\[({number}):({number})\]", info)
        if seen:
            ranges[name] = (float(seen[1]), float(seen[2]))
        elif re.fullmatch(r"-?\d+(:-?\d+)*", info):
            coded.append(name)
    notes = [f"objective {said['objective']}"] if "objective" in said else []
    known = re.search(r"^pandas_categorical:(\[.*\])$", tail, re.M)
    columns = json.loads(known[1]) if known else []
    for name, values in zip(coded, columns, strict=False):
        notes.append(f"{name} is a code: the position in {json.dumps(values)[:200]}")
    return Hints(ranges=ranges, notes=tuple(notes))
