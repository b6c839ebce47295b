"""Loads trained models: one module per format, one small interface for all of them.

Owns what may be loaded at all. A model file is untrusted data: no format here runs code from it,
each file is checked before its library reads it, and a rejection names the fix. The libraries are
heavy and most are optional, so each is imported only when its format is needed.

To add a format: a module with its loader, an entry in :data:`FORMATS`, and its name in the API's
``ModelFormat``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fourways_api.model import ModelReference
from fourways_runtime.errors import ConfigError

from .base import Model, Tensor
from .sniff import refuse_other_format

__all__ = ["FORMATS", "LoadRequest", "Model", "Tensor", "load"]


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
    return FORMATS[reference.format](LoadRequest(path, reference, threads, external_root))


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


def _python(request: LoadRequest) -> Model:
    if request.reference.python_class is None:
        raise ConfigError("format python needs pythonClass")
    from .python_model import load_python

    return load_python(request.path, request.reference.python_class)


FORMATS: dict[str, Callable[[LoadRequest], Model]] = {
    "onnx": _onnx,
    "skops": _skops,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "python": _python,
}
"""The loader of each format."""
