"""LightGBM models in its text format. Pickles are rejected."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fourways_runtime.errors import ModelNotLoadable

from ..columns import Array
from .extras import load_module
from .library_errors import library_error
from .matrix_model import MatrixModel


def load_lightgbm(path: Path, *, threads: int) -> MatrixModel:
    """Load a model saved by ``Booster.save_model``. Raises ModelNotLoadable."""
    lightgbm = load_module("lightgbm", "lightgbm")
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
