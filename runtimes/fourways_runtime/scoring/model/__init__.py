"""Loads trained models: one module per format, one small interface for all of them.

Owns what may be loaded at all. A model file is untrusted data: no format here runs code from it,
each file is checked before its library reads it, and a rejection names the fix. The libraries are
heavy and most are optional, so each is imported only when its format is needed.

To add a format: a module with its loader, an entry in :data:`FORMATS`, and its name in the API's
``ModelFormat``. What ``fourways init`` asks of a format (how its files begin, what they say about
their data) is in the same two places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fourways_api.model import ModelReference
from fourways_runtime.errors import ConfigError

from .base import Model, Tensor
from .hints import Hints
from .sniff import refuse_other_format

__all__ = ["FORMATS", "Format", "LoadRequest", "Model", "Tensor", "load"]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A model file and how to load it."""

    path: Path
    """A private copy that no other process writes to."""

    reference: ModelReference
    threads: int
    """Number of threads that one prediction may use."""

    external_root: Path | None = None
    """The model's own folder at its source, which may contain the weights of an ONNX model with
    ``allowExternalData``; files are copied from it, never loaded from it.
    """


def load(
    path: Path, reference: ModelReference, *, threads: int, external_root: Path | None = None
) -> Model:
    """Load a model file; the arguments are those of :class:`LoadRequest`.

    Raises:
        ModelNotLoadable: the file is not a model of this format, or it is rejected for safety.
        ConfigError: an extra is missing, or the reference is invalid.

    """
    refuse_other_format(path, reference.format)
    return FORMATS[reference.format].load(LoadRequest(path, reference, threads, external_root))


def _onnx(request: LoadRequest) -> Model:
    from .onnx_model import load_onnx

    root = request.external_root if request.reference.allow_external_data else None
    return load_onnx(request.path, threads=request.threads, external_root=root)


def _skops(request: LoadRequest) -> Model:
    from .skops_model import load_skops

    max_bytes = request.reference.max_size_mi_b << 20
    return load_skops(request.path, threads=request.threads, max_bytes=max_bytes)


def _xgboost(request: LoadRequest) -> Model:
    from .xgboost_model import load_xgboost

    return load_xgboost(request.path, threads=request.threads)


def _lightgbm(request: LoadRequest) -> Model:
    from .lightgbm_model import load_lightgbm

    return load_lightgbm(request.path, threads=request.threads)


def _litert(request: LoadRequest) -> Model:
    from .litert_model import load_litert

    return load_litert(request.path, threads=request.threads)


def _python(request: LoadRequest) -> Model:
    if request.reference.python_class is None:
        raise ConfigError("format python needs pythonClass")
    from .python_model import load_python

    return load_python(request.path, request.reference.python_class)


def _onnx_hints(request: LoadRequest) -> Hints:
    from .onnx_hints import onnx_hints

    return onnx_hints(request.path.read_bytes())


def _skops_hints(request: LoadRequest) -> Hints:
    from .skops_model import skops_hints

    return skops_hints(request.path, max_bytes=request.reference.max_size_mi_b << 20)


def _xgboost_hints(request: LoadRequest) -> Hints:
    from .xgboost_model import xgboost_hints

    return xgboost_hints(request.path)


def _lightgbm_hints(request: LoadRequest) -> Hints:
    from .lightgbm_model import lightgbm_hints

    return lightgbm_hints(request.path)


@dataclass(frozen=True, slots=True)
class Format:
    """What a format can do."""

    load: Callable[[LoadRequest], Model]

    recognises: Callable[[bytes], bool] = lambda _: False
    """Whether a file that begins with these bytes is of this format."""

    hints: Callable[[LoadRequest], Hints] = lambda _: Hints()
    """What a file says about its data; called after it was loaded."""


FORMATS: dict[str, Format] = {
    # The first field of every ONNX file is its version of the format (field 1, a varint).
    "onnx": Format(_onnx, lambda first: first[:1] == b"\x08", _onnx_hints),
    "skops": Format(_skops, lambda first: first.startswith(b"PK\x03\x04"), _skops_hints),
    "xgboost": Format(
        _xgboost, lambda first: first[:1] == b"{" and b"learner" in first, _xgboost_hints
    ),
    "lightgbm": Format(
        _lightgbm, lambda first: first.partition(b"\n")[0].strip() == b"tree", _lightgbm_hints
    ),
    "litert": Format(_litert, lambda first: first[4:8] == b"TFL3"),
    "python": Format(_python),
}
"""Each format by its name in the API."""
