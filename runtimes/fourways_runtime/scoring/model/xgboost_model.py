"""XGBoost models in JSON or UBJSON. The old binary format and pickles are rejected."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from fourways_runtime.errors import ModelNotLoadable

from ..columns import Array
from . import ubjson
from .extras import TREES_WITHOUT, load_module
from .hints import Hints
from .library_errors import library_error
from .matrix_model import MatrixModel, Predictor


def load_xgboost(path: Path, *, threads: int) -> MatrixModel:
    """Load a model saved by ``save_model`` as .json or .ubj. Raises ModelNotLoadable."""
    xgboost = load_module("xgboost", "xgboost", without=TREES_WITHOUT)
    raw = path.read_bytes()
    _check(raw)
    try:
        booster = xgboost.Booster(model_file=bytearray(raw))
        booster.set_param({"nthread": threads, "device": "cpu"})
        features = booster.num_features()
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        raise ModelNotLoadable(
            "xgboost cannot load the model: it is damaged, or saved by a newer version "
            f"({library_error(error)})"
        ) from error
    # After early stopping, XGBoost's own estimators predict with the best trees, not all of them.
    best = booster.attr("best_iteration")
    trees = (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)

    def in_place(matrix: Array) -> Array:
        answer = booster.inplace_predict(matrix, iteration_range=trees, validate_features=False)
        return np.asarray(answer)

    # A linear booster cannot predict in place.
    linear = json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear"
    predict = _from_copies(xgboost, booster, threads) if linear else in_place
    return MatrixModel(
        {"prediction": predict},
        features=features,
        dtype="float32",
        columns=booster.feature_names or (),
    )


def xgboost_hints(path: Path) -> Hints:
    """Read objective and coded columns of a model that loads."""
    xgboost = load_module("xgboost", "xgboost", without=TREES_WITHOUT)
    booster = xgboost.Booster(model_file=bytearray(path.read_bytes()))
    learner = json.loads(booster.save_config())["learner"]
    notes = [f"objective {learner['objective']['name']}"]
    names, kinds = booster.feature_names or (), booster.feature_types or ()
    for name, kind in zip(names, kinds, strict=False):
        if kind == "c":
            notes.append(f"{name} is a code: the position of the category in training")
    return Hints(notes=tuple(notes))


def _from_copies(xgboost: Any, booster: Any, threads: int) -> Predictor:
    """Return a predictor that uses XGBoost's own copy of the matrix, one call at a time."""
    # XGBoost guarantees thread-safe predictions only for trees.
    lock = threading.Lock()

    def predict(matrix: Array) -> Array:
        with lock:
            table = xgboost.DMatrix(matrix, nthread=threads)
            return np.asarray(booster.predict(table, validate_features=False))

    return predict


def _check(raw: bytes) -> None:
    # Both formats are one object; the old binary has "binf" or a C struct here, a pickle \x80.
    if not raw.startswith(b"{"):
        raise ModelNotLoadable(
            "the file is not an XGBoost model in JSON or UBJSON; save it with "
            "save_model('model.ubj')"
        )
    try:
        # A key's length follows in UBJSON, a quote or white space in JSON.
        if raw[1:2].isalpha():
            ubjson.check(raw)
        else:
            json.loads(raw)
    except (ValueError, RecursionError):
        raise ModelNotLoadable("the XGBoost model is damaged or truncated") from None
