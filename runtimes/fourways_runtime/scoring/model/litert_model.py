"""LiteRT models (``.tflite``), as TensorFlow, Keras and JAX export them, on LiteRT's interpreter.

The interpreter verifies the file: its tables, and the indices of tensors and buffers in it. Only
its own operators run: there are no custom ones, and no delegate but the built-in one for CPUs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fourways_api.display import displayed
from fourways_runtime.errors import ContractMismatch, ModelError, ModelNotLoadable

from ..columns import Array
from .base import Model, Tensor
from .extras import load_module
from .library_errors import library_error
from .row_by_row import row_by_row

_TYPES = frozenset({"bool", "float16", "float32", "float64"}) | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_PREFIX = "serving_default_"


class LitertModel:
    """A model in an interpreter, which one thread uses at a time."""

    def __init__(self, interpreter: Any, names: Mapping[int, str]) -> None:
        """Read the tensors; ``names`` are those of the signature, by the tensor's index.

        Raises:
            ModelNotLoadable: an input is of a type that no contract has.

        """
        self._interpreter = interpreter
        self._lock = threading.Lock()
        self._inputs = list(interpreter.get_input_details())
        self._outputs = list(interpreter.get_output_details())
        self.inputs = tuple(_tensor(each, names) for each in self._inputs)
        self.outputs = tuple(_tensor(each, names) for each in self._outputs)
        self._sizes = [tuple(each["shape"]) for each in self._inputs]
        for tensor in self.inputs:
            if tensor.unreadable:
                raise ModelNotLoadable(tensor.unreadable)

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch; see :class:`fourways_runtime.scoring.model.base.Model`."""
        try:
            given = [tensors[tensor.name] for tensor in self.inputs]
        except KeyError as missing:
            raise ContractMismatch(f"the model reads {missing}, which was not given") from None
        with self._lock:
            try:
                self._set(given)
            except (ValueError, RuntimeError):
                self._sizes = []  # What is allocated now is not known.
                shapes = ", ".join(f"{values.dtype}{list(values.shape)}" for values in given)
                raise ContractMismatch(f"the model rejected its inputs: {shapes}") from None
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                # The text of the error may quote the records; its type does not.
                raise ModelError(f"the model failed: {type(error).__name__}") from None
            return {
                tensor.name: self._interpreter.get_tensor(detail["index"])
                for tensor, detail in zip(self.outputs, self._outputs, strict=True)
                if not tensor.unreadable
            }

    def _set(self, given: list[Array]) -> None:
        sizes = [values.shape for values in given]
        if sizes != self._sizes:
            for detail, shape in zip(self._inputs, sizes, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], shape, strict=True)
            self._interpreter.allocate_tensors()
            self._sizes = sizes
        for detail, values in zip(self._inputs, given, strict=True):
            self._interpreter.set_tensor(detail["index"], values)


def load_litert(path: Path, *, threads: int) -> Model:
    """Load a file. A model that is fixed to a batch of one is called for each record.

    Raises ModelNotLoadable.
    """
    library = load_module("ai_edge_litert.interpreter", "litert")
    raw = path.read_bytes()
    try:
        names = _names(library.Interpreter(model_content=raw))
        interpreter = library.Interpreter(model_content=raw, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, TypeError) as error:
        said = library_error(error)
        if "Select TensorFlow op" in str(error) or "custom op" in str(error).lower():
            raise ModelNotLoadable(
                "the model uses operators of TensorFlow or custom ones, which LiteRT does not have;"
                f" convert it with TFLITE_BUILTINS only ({said})"
            ) from None
        raise ModelNotLoadable(f"LiteRT cannot load the model: {said}") from None
    return row_by_row(LitertModel(interpreter, names))


def _names(interpreter: Any) -> dict[int, str]:
    """Return the names that the file's only signature gives to tensors, by their index.

    Uses an interpreter of its own: a signature keeps it from being resized.
    """
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        return {}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    details = (*runner.get_input_details().items(), *runner.get_output_details().items())
    return {int(detail["index"]): str(name) for name, detail in details}


def _tensor(detail: Mapping[str, Any], names: Mapping[int, str]) -> Tensor:
    index = int(detail["index"])
    name = names.get(index) or str(detail["name"]).removeprefix(_PREFIX).removesuffix(":0")
    kind = np.dtype(detail["dtype"]).name
    fault = ""
    if kind not in _TYPES:
        fault = (
            f"the model's tensor {displayed(name, 80)} is of type {displayed(kind, 40)}; convert it"
            f" with one of {', '.join(sorted(_TYPES))}"
        )
    signature = detail["shape_signature"]
    shape = signature if len(signature) == len(detail["shape"]) else detail["shape"]
    sizes = tuple(None if size < 0 else int(size) for size in shape)
    return Tensor(name, "" if fault else kind, sizes, unreadable=fault)
