"""ONNX models, on onnxruntime's CPU provider.

The file is read once and checked, and the checked bytes are loaded: nothing can change in between.
Weights in other files are rejected unless the deployment allows them, and then they come from a
private copy of the model's own folder.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from fourways_api.display import displayed
from fourways_runtime.errors import ContractMismatch, ModelError, ModelNotLoadable

from ..columns import Array
from .base import Model, Tensor
from .extras import load_module
from .onnx_external import copy_external
from .onnx_graph import Summary, summarise
from .onnx_zipmap import with_tensors_for_maps
from .row_by_row import row_by_row

_TYPES = {
    "bool": "bool",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "float16": "float16",
    "float": "float32",
    "double": "float64",
    "string": "string",
    "bfloat16": "float32",
}
"""numpy's names of onnxruntime's types."""

_BFLOAT16 = "tensor(bfloat16)"


COLUMNS_KEY = "fourways.columns"
"""Key of the metadata with the names of the columns of a model's only input, as a JSON list."""


def columns_text(columns: Sequence[str]) -> str:
    """Write the names of columns as the metadata holds them."""
    return json.dumps(list(columns))


class OnnxModel:
    """An ONNX model in an onnxruntime session."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = _named(tuple(map(_input, session.get_inputs())), session)
        self.outputs = tuple(map(_output, session.get_outputs()))
        self._names = [tensor.name for tensor in self.outputs if not tensor.unreadable]
        nodes = (*session.get_inputs(), *session.get_outputs())
        self._narrow = frozenset(node.name for node in nodes if node.type == _BFLOAT16)

    def answering(self, outputs: Collection[str]) -> Self:
        """Return the same model with fewer outputs; see :class:`.base.SelectiveModel`."""
        fewer = copy.copy(self)
        fewer._names = [name for name in self._names if name in outputs]
        return fewer

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch; see :class:`fourways_runtime.scoring.model.base.Model`."""
        try:
            feed = {tensor.name: tensors[tensor.name] for tensor in self.inputs}
        except KeyError as missing:
            raise ContractMismatch(f"the model reads {missing}, which was not given") from None
        try:
            if self._narrow:
                return self._run_narrow(feed)
            values = self._session.run(self._names, feed)
        except Exception as error:  # noqa: BLE001  (onnxruntime's errors share no base but this)
            if type(error).__name__ == "InvalidArgument":
                raise ContractMismatch(f"the model rejected its inputs: {_said(error)}") from None
            raise ModelError(f"the model failed: {_said(error)}") from None
        return dict(zip(self._names, values, strict=True))

    def _run_narrow(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Run with tensors of bfloat16 cast, which numpy cannot represent."""
        from . import bfloat16

        make = load_module("onnxruntime", "runtime").OrtValue
        given = {
            name: make.ortvalue_from_numpy_with_onnx_type(
                bfloat16.bits_of(values), bfloat16.ONNX_TYPE
            )
            if name in self._narrow
            else make.ortvalue_from_numpy(values)
            for name, values in feed.items()
        }
        found = self._session.run_with_ort_values(self._names, given)
        return {
            name: bfloat16.read(value) if name in self._narrow else value.numpy()
            for name, value in zip(self._names, found, strict=True)
        }


def _named(inputs: tuple[Tensor, ...], session: Any) -> tuple[Tensor, ...]:
    """Give the only input, if it is a matrix, the names of its columns from the metadata."""
    if len(inputs) != 1 or len(inputs[0].shape) != 2:
        return inputs
    text = session.get_modelmeta().custom_metadata_map.get(COLUMNS_KEY)
    try:
        columns = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return inputs
    if not isinstance(columns, list) or len(columns) != inputs[0].shape[1]:
        return inputs
    return (replace(inputs[0], columns=tuple(map(str, columns))),)


def load_onnx(path: Path, *, threads: int, external_root: Path | None = None) -> Model:
    """Load an ONNX file; without ``external_root``, weights in other files are rejected.

    A model that is fixed to a batch of one is called for each record.

    Raises ModelNotLoadable.
    """
    runtime = load_module("onnxruntime", "runtime")
    raw = path.read_bytes()
    summary = summarise(raw)
    raw = with_tensors_for_maps(raw)
    options = _options(runtime, threads)
    if not summary.external:
        loaded = OnnxModel(_session(runtime, raw, options, summary))
        return row_by_row(loaded, summary.scalars)
    if external_root is None:
        raise ModelNotLoadable(
            "the model keeps weights in other files; export it as one file,"
            " or set allowExternalData for a file or pvc URI"
        )
    with tempfile.TemporaryDirectory(prefix="fourways-onnx-") as folder:
        copy_external(summary.external, external_root, Path(folder))
        # A distinct name, so that none of the copies can replace the model.
        model = Path(folder) / f"{path.name}.fourways-model"
        with model.open("xb") as file:
            file.write(raw)
        return row_by_row(
            OnnxModel(_session(runtime, str(model), options, summary)), summary.scalars
        )


def _options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    # Its own log would repeat what our messages say.
    options.log_severity_level = 4
    # Spinning threads burn the CPU quota of a pod while they wait.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Otherwise, bytes with the magic number of the ORT format would be read as that format and
    # bypass our checks.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _session(runtime: Any, model: bytes | str, options: Any, summary: Summary) -> Any:
    try:
        # Its fallback prints the error as it is, and then tries the same provider again.
        return runtime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # noqa: BLE001  (onnxruntime's errors share no base but this)
        said = _said(error)
        if "opset" in said.lower():
            limit = re.search(r"till opset (\d+)", said)
            until = f" up to {limit[1]}" if limit else ""
            raise ModelNotLoadable(
                f"the model has opset {summary.opset}; this runtime supports opsets{until}:"
                " export it with an older one"
            ) from None
        locale = re.search(r"Failed to construct locale with name:\s*([\w.@-]{1,40})", said)
        if locale:
            raise ModelNotLoadable(
                f"the model needs the locale {locale[1]}, which is not installed where the runtime"
                f" runs (the project's images have en_US.UTF-8): install it, or export the model"
                " with another locale"
            ) from None
        raise ModelNotLoadable(f"onnxruntime cannot load the model: {said}") from None


def _said(error: Exception) -> str:
    """Return onnxruntime's message without its source paths and unprintable characters."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"(Load model from \S* failed:)?/onnxruntime_src/\S+ ", "", text)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return displayed(first, 300)


def _input(node: Any) -> Tensor:
    kind, fault = _kind(node, "input")
    if fault:
        raise ModelNotLoadable(fault)
    return Tensor(node.name, kind, _shape(node))


def _output(node: Any) -> Tensor:
    kind, fault = _kind(node, "output")
    # Rejected only if a contract reads it: an unused output may be of any type.
    return Tensor(node.name, kind, () if fault else _shape(node), unreadable=fault)


def _kind(node: Any, side: str) -> tuple[str, str]:
    """Return numpy's name of a tensor's type, and why it cannot be used, or an empty text."""
    name = displayed(node.name, 80)
    kind = re.fullmatch(r"tensor\((\w+)\)", node.type)
    if kind is None:
        return "", (
            f"the model's {side} {name} is {displayed(node.type, 80)}, not a tensor; "
            f"export it with tensors as {side}s"
        )
    if kind[1] not in _TYPES:
        return "", (
            f"the model's {side} {name} is of type {kind[1]}; cast it to one of"
            f" {', '.join(dict.fromkeys(_TYPES.values()))}"
        )
    return _TYPES[kind[1]], ""


def _shape(node: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in node.shape)
