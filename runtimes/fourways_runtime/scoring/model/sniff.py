"""Recognises files that are not a model of the declared format, by their first bytes.

A loader can only report that a file is not of its format. This module names the common mix-ups and
their fixes; unrecognised files are left to the loader.
"""

from __future__ import annotations

from pathlib import Path

from fourways_api.model import ModelFormat
from fourways_runtime.errors import ModelNotLoadable

_FIRST_BYTES = 512

_EXPORT = "export it as ONNX"
_PICKLE = (
    "the file is a pickle, not {format}: loading a pickle can run any code, so none is ever loaded;"
    " export the model as ONNX (skl2onnx, torch.onnx.export), or a scikit-learn model with skops"
)
_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", f"the file is HDF5, as Keras saves it; {_EXPORT} (tf2onnx)"),
    (b"\x1f\x8b", "the file is compressed with gzip; unpack it"),
    (b"GGUF", "the file is GGUF, a language model; serve it with an LLM server"),
    (
        b"version https://git-lfs",
        "the file is a Git LFS pointer, not the model itself; fetch it with git lfs pull",
    ),
)
_ARCHIVE = f"the file is a zip archive, as PyTorch and Keras save models; {_EXPORT}"
_PAGE = "the file is a web page, not a model; check the URI"


def refuse_other_format(path: Path, wanted: ModelFormat) -> None:
    """Reject a file that is recognised as another format. Raises ModelNotLoadable."""
    with path.open("rb") as file:
        fault = fault_of(file.read(_FIRST_BYTES), wanted)
    if fault is not None:
        raise ModelNotLoadable(fault)


def fault_of(first: bytes, wanted: ModelFormat) -> str | None:
    """Return what a file is by its first bytes, and the fix; None if it may be the wanted format.

    ``first`` holds at least 16 bytes of the file, if it has as many.
    """
    if wanted == "python":
        return None  # the user's own code reads the file
    # A pickle of protocol 2 to 5 begins like this; neither ONNX protobufs nor the other formats do.
    if first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PICKLE.format(format=wanted)
    for mark, fault in _MARKS:
        if first.startswith(mark):
            return fault
    if first.startswith(b"PK\x03\x04") and wanted != "skops":
        return _ARCHIVE
    if first[4:8] == b"TFL3":
        return f"the file is TensorFlow Lite; {_EXPORT} (tf2onnx)"
    if first.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return _PAGE
    if wanted == "onnx" and first.startswith(b"tree\n"):
        return "the file is a LightGBM model; set spec.model.format to lightgbm"
    if wanted == "onnx" and b"learner" in first and first.startswith(b"{"):
        return "the file is an XGBoost model; set spec.model.format to xgboost"
    return None
