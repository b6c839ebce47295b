"""XGBoost models in JSON or UBJSON. The old binary format and pickles are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fourways_runtime.errors import ModelNotLoadable

from ..columns import Array
from . import ubjson
from .extras import load_module
from .matrix_model import MatrixModel


def load_xgboost(path: Path, *, threads: int) -> MatrixModel:
    """Load a model saved by ``save_model`` as .json or .ubj. Raises ModelNotLoadable."""
    xgboost = load_module("xgboost", "xgboost")
    raw = path.read_bytes()
    _check(raw)
    try:
        booster = xgboost.Booster(model_file=bytearray(raw))
        booster.set_param({"nthread": threads, "device": "cpu"})
        features = booster.num_features()
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        raise ModelNotLoadable(
            f"xgboost does not load the model ({type(error).__name__}): it is damaged or newer"
        ) from error
    # After early stopping XGBoost's own estimators answer with the best trees, not all of them.
    best = booster.attr("best_iteration")
    trees = (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)

    def predict(matrix: Array) -> dict[str, Array]:
        answer = booster.inplace_predict(matrix, iteration_range=trees, validate_features=False)
        return {"prediction": np.asarray(answer)}

    return MatrixModel(predict, features=features, dtype="float32")


def _check(raw: bytes) -> None:
    # Both formats are one object; the old binary has "binf" or a C struct here, a pickle \x80.
    if not raw.startswith(b"{"):
        raise ModelNotLoadable(
            "the file is no XGBoost model in JSON or UBJSON; save it with save_model('model.ubj')"
        )
    try:
        # A key's length follows in UBJSON, a quote or white space in JSON.
        if raw[1:2].isalpha():
            ubjson.check(raw)
        else:
            json.loads(raw)
    except (ValueError, RecursionError):
        raise ModelNotLoadable("the XGBoost model is damaged or cut short") from None
