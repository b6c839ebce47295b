"""LightGBM models in its text format. Pickles are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fourways_runtime.errors import ModelNotLoadable

from ..columns import Array
from .extras import load_module
from .matrix_model import MatrixModel


def load_lightgbm(path: Path, *, threads: int) -> MatrixModel:
    """Load a model saved by ``Booster.save_model``. Raises ModelNotLoadable."""
    lightgbm = load_module("lightgbm", "lightgbm")
    refusal = "the file is no LightGBM text model; save it with booster_.save_model('model.txt')"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ModelNotLoadable(refusal) from None
    if text.partition("\n")[0].strip() != "tree":
        raise ModelNotLoadable(refusal)
    # Its reader takes what is there: a file cut short loads as fewer trees.
    if "\nend of trees" not in text:
        raise ModelNotLoadable("the LightGBM model is cut short")
    try:
        booster = lightgbm.Booster(model_str=text)
        features = booster.num_feature()
    except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
        raise ModelNotLoadable(
            f"lightgbm does not load the model ({type(error).__name__}): it is damaged or newer"
        ) from error

    def predict(matrix: Array) -> dict[str, Array]:
        return {"prediction": np.asarray(booster.predict(matrix, num_threads=threads))}

    return MatrixModel(predict, features=features, dtype="float64")
