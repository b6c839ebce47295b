"""Loading trained models: one module a format, one small interface for all of them.

Owns what may be loaded at all. A model file is data from elsewhere: no format here runs code from
it, each is checked before its library sees it, and what is refused is refused with the fix. The
libraries are heavy and most are optional, so each is imported when its format is asked for.
"""

from __future__ import annotations

from pathlib import Path

from fourways_api.model import ModelReference
from fourways_runtime.errors import ConfigError

from .base import Model, Tensor

__all__ = ["Model", "Tensor", "load"]


def load(
    path: Path, reference: ModelReference, *, threads: int, external_root: Path | None = None
) -> Model:
    """Load the model file at ``path``, a private copy nobody else writes to.

    ``threads`` is how many threads one prediction may use. ``external_root`` is the model's own
    folder at its source, from which an ONNX model with ``allowExternalData`` may take weights; it
    is copied from, never loaded from.

    Raises ModelNotLoadable for a file that is no such model or one we refuse, ConfigError for a
    missing extra or an impossible reference.
    """
    match reference.format:
        case "onnx":
            from .onnx_model import load_onnx

            root = external_root if reference.allow_external_data else None
            return load_onnx(path, threads=threads, external_root=root)
        case "skops":
            from .skops_model import load_skops

            return load_skops(path, threads=threads, max_bytes=reference.max_size_mi_b << 20)
        case "xgboost":
            from .xgboost_model import load_xgboost

            return load_xgboost(path, threads=threads)
        case "lightgbm":
            from .lightgbm_model import load_lightgbm

            return load_lightgbm(path, threads=threads)
        case "python":
            if reference.python_class is None:
                raise ConfigError("format python needs pythonClass")
            from .python_model import load_python

            return load_python(path, reference.python_class)
