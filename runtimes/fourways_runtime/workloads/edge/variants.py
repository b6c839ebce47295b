"""The variants of a model: optimised ahead of time, and with eight-bit weights; or as it is.

Owns how each variant is made and when it cannot be. A LiteRT model is published as its author
converted and quantised it, because nothing here converts one. Both variants of ONNX run
on any device: optimisation stops at ``EXTENDED``, because ``ALL`` adds layouts specific to the
build machine's processor (a device's onnxruntime adds its own when it loads the file), and
eight-bit weights use only seven bits, because processors without VNNI overflow with the eighth.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError, ModelNotLoadable
from fourways_runtime.scoring.model.extras import load_module
from fourways_runtime.scoring.model.onnx_graph import summarise

logger = logging.getLogger("fourways.edge")

QUANTISED_OPERATORS = ("MatMul", "Gemm", "Attention", "LSTM")
"""Operators whose weights become integers. Convolutions stay: integers slow them down on CPUs."""

_INTEGER_OPERATORS = frozenset(
    {
        "MatMulInteger",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "DynamicQuantizeLSTM",
        "QAttention",
    }
)


class Skipped(Exception):
    """A variant that cannot be made; ``str()`` says why."""


def check_whole(model: Path) -> None:
    """Reject a model whose weights are in other files. Raises ConfigError, ModelNotLoadable."""
    if summarise(model.read_bytes()).external:
        raise ConfigError(
            "model: a bundle holds the model as one file, but this model keeps weights in others;"
            " export it as one file"
        )


def fp32(model: Path, into: Path) -> Path:
    """Write the model with its graph optimised. Raises ModelNotLoadable."""
    return _optimised(model, into / "fp32.onnx", "ORT_ENABLE_EXTENDED")


def int8(model: Path, into: Path) -> Path:
    """Write the model with its weights as integers. Raises Skipped with the reason."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise Skipped(f"the package onnx is not installed: {install_command('edge')}") from None
    # Optimised without fusing operators: quantisation supports only unfused ones.
    plain = _optimised(model, into / "plain.onnx", "ORT_ENABLE_BASIC")
    quantised = into / "quantised.onnx"
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # its warning recommends the preprocessing done just above
    try:
        quantize_dynamic(
            plain,
            quantised,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            op_types_to_quantize=list(QUANTISED_OPERATORS),
        )
    except Exception as error:
        logger.warning("quantisation failed", exc_info=error)
        raise Skipped(f"quantisation failed ({type(error).__name__})") from None
    finally:
        root.setLevel(level)
    operators = _operators(quantised)
    if not operators.keys() & _INTEGER_OPERATORS:
        most = ", ".join(name for name, _ in operators.most_common(6))
        raise Skipped(
            f"nothing to quantise: no {', '.join(QUANTISED_OPERATORS)} with constant weights"
            f" (the model is made of {most})"
        )
    try:
        return _optimised(quantised, into / "int8.onnx", "ORT_ENABLE_EXTENDED")
    except ModelNotLoadable as error:
        raise Skipped(f"the quantised model cannot be loaded: {error}") from None


def original(model: Path, into: Path) -> Path:
    """Return the model's own file."""
    return model


MAKERS: dict[str, dict[str, Callable[[Path, Path], Path]]] = {
    "onnx": {"fp32": fp32, "int8": int8},
    "litert": {"original": original},
}
"""The function that makes each variant, by the model's format and the variant's name."""


def _optimised(model: Path, to: Path, level: str) -> Path:
    runtime = load_module("onnxruntime", "runtime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(to)
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.save_model_format", "ONNX")
    try:
        runtime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        logger.warning("optimisation failed", exc_info=error)
        raise ModelNotLoadable("onnxruntime cannot optimise the model; see the log") from None
    return to


def _operators(model: Path) -> Counter[str]:
    import onnx

    graphs: list[Any] = [onnx.load(model).graph]
    found: Counter[str] = Counter()
    while graphs:
        for node in graphs.pop().node:
            found[node.op_type] += 1
            graphs += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return found
