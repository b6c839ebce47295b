"""Converts a loaded model to ONNX with the converters of its library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from fourways_api.display import displayed
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.model.library_errors import library_error
from fourways_runtime.scoring.model.onnx_model import COLUMNS_KEY, columns_text

from .errors import NotConverted

_OPSET = {"": 18, "ai.onnx.ml": 3}
"""Versions that onnxruntime has run for years."""

_MATRIX = "X"


def sklearn_to_onnx(estimator: Any, model: Model, texts: Sequence[str], *, wide: bool) -> bytes:
    """Convert an estimator; ``texts`` are the inputs that hold text, ``wide`` is for float64.

    Raises:
        NotConverted: the converter does not know a part of it.

    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types

    number = data_types.DoubleTensorType if wide else data_types.FloatTensorType
    if len(model.inputs) == 1 and model.inputs[0].name == _MATRIX:
        width = model.inputs[0].shape[1]
        types = [(_MATRIX, number([None, width]))]
    else:
        types = [
            (each.name, (data_types.StringTensorType if each.name in texts else number)([None, 1]))
            for each in model.inputs
        ]
    final = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    options = {id(final): {"zipmap": False}} if hasattr(final, "predict_proba") else None
    try:
        made = convert_sklearn(estimator, initial_types=types, options=options, target_opset=_OPSET)
    except Exception as error:
        raise NotConverted(f"skl2onnx cannot convert this model: {library_error(error)}") from error
    _restore_names(made.graph, [name for name, _ in types])
    return _finished(made, model)


def trees_to_onnx(path: Path, kind: str, model: Model) -> bytes:
    """Convert an XGBoost or LightGBM model. Raises NotConverted."""
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    width = model.inputs[0].shape[1]
    types = [(_MATRIX, FloatTensorType([None, width]))]
    opset = 15
    try:
        if kind == "xgboost":
            import xgboost

            booster = xgboost.Booster(model_file=bytearray(path.read_bytes()))
            if booster.feature_names:
                # The converter takes the numbers of columns from names of this form only.
                booster.feature_names = [f"f{at}" for at in range(width or 0)]
            best = booster.attr("best_iteration")
            if best is not None and best.isdecimal():
                booster = booster[: int(best) + 1]
            made = onnxmltools.convert_xgboost(booster, initial_types=types, target_opset=opset)
        else:
            import lightgbm

            made = onnxmltools.convert_lightgbm(
                lightgbm.Booster(model_file=str(path)),
                initial_types=types,
                zipmap=False,
                target_opset=opset,
            )
    except Exception as error:
        raise NotConverted(
            f"onnxmltools cannot convert this model: {library_error(error)}"
        ) from error
    return _finished(made, model)


def _restore_names(graph: Any, names: Sequence[str]) -> None:
    """Give the inputs the names of their columns, in which skl2onnx replaces ``(`` and the like."""
    for at, (given, name) in enumerate(zip(graph.input, names, strict=True)):
        if given.name != name:
            graph.node.insert(at, onnx.helper.make_node("Identity", [name], [given.name]))
            given.name = name


def declaring(raw: bytes, answers: Mapping[str, Array]) -> bytes:
    """Return the model with the sizes of its outputs declared as it answered (N, …).

    The converters declare one column for several targets.
    """
    made = onnx.load_from_string(raw)
    for output in made.graph.output:
        dimensions = output.type.tensor_type.shape.dim
        values = answers.get(output.name)
        if values is not None and len(dimensions) == values.ndim:
            for dimension, size in zip(dimensions[1:], values.shape[1:], strict=True):
                dimension.dim_value = size
    return bytes(made.SerializeToString())


def _finished(made: Any, model: Model) -> bytes:
    """Free the batch dimension of all outputs, and keep the names of the matrix's columns."""
    for output in made.graph.output:
        dimensions = output.type.tensor_type.shape.dim
        if len(dimensions) and dimensions[0].HasField("dim_value"):
            dimensions[0].Clear()
    columns = model.inputs[0].columns
    if columns:
        onnx.helper.set_model_props(made, {COLUMNS_KEY: columns_text(columns)})
    # What the converter wrote about itself may name folders of this machine.
    made.doc_string = displayed("Converted by fourways convert.")
    return bytes(made.SerializeToString())
