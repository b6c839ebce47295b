"""Models as devices load them: the formats that a bundle can hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fourways_api import Contract
from fourways_runtime import bundle_layout as layout

from .base import Model
from .litert_model import load_litert
from .onnx_model import load_onnx
from .text_model import reading_texts

_LOADERS = {layout.MODEL_FILES["onnx"]: load_onnx, layout.MODEL_FILES["litert"]: load_litert}


def load_on_device(contract: Contract, files: Mapping[str, Path], *, threads: int) -> Model:
    """Load the model of a bundle's files, by name. It reads what the contract says.

    Raises:
        ModelNotLoadable: the file is no model, or it is rejected for safety.
        ContractMismatch: its tokenizer does not fit.
        ConfigError: a library is not installed.

    """
    name = layout.model_file(files)
    model = _LOADERS[name](files[name], threads=threads)
    return reading_texts(model, contract, files.get(layout.TOKENIZER_FILE))
