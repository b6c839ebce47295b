"""Recognises files that are not a model of the declared format, by their first bytes.

A loader can only report that a file is not of its format. This module names the common mix-ups and
their fixes; unrecognised files are left to the loader.
"""

from __future__ import annotations

import re
from pathlib import Path

from fourways_api.model import ModelFormat
from fourways_runtime.errors import ModelNotLoadable

_FIRST_BYTES = 512

_EXPORT = "export it as ONNX"
_PICKLE = (
    "the file is a pickle, not {format}: loading a pickle can run any code, so none is ever loaded;"
    " export the model as ONNX (skl2onnx, torch.onnx.export), or a scikit-learn model with skops"
)
_NEVER_OPENED = (
    "the file is {what}: opening it can run any code, so it is never opened. Where you trained the"
    " model, save it without code: skops.io.dump(model, 'model.skops') for scikit-learn,"
    " model.save_model('model.ubj') for XGBoost, booster_.save_model('model.txt') for LightGBM,"
    " torch.onnx.export for PyTorch. Forests and neighbours are then converted with"
    " `fourways convert model.skops -o model.onnx`"
)
_PICKLED_NAMES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
# joblib compresses with zlib, gzip, bz2, xz, lzma or lz4; it writes a text before its oldest files.
_COMPRESSED = (
    *(b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh"),
    *(b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18", b"ZF0x"),
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
    fault = fault_of(first_bytes(path), wanted)
    if fault is not None:
        raise ModelNotLoadable(fault)


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file, enough to recognise it. Raises OSError."""
    with path.open("rb") as file:
        return file.read(_FIRST_BYTES)


def refuse_foreign(first: bytes, name: str) -> None:
    """Reject a file that no format loads, by its first bytes; ``name`` is the file's name.

    Raises:
        ModelNotLoadable: the message names what it is, and how to save the model instead.

    """
    lowered = name.lower()
    if _is_pickle(first):
        raise ModelNotLoadable(_NEVER_OPENED.format(what="a pickle"))
    if first.startswith(_COMPRESSED) and any(end in lowered for end in _PICKLED_NAMES):
        raise ModelNotLoadable(_NEVER_OPENED.format(what="a compressed joblib file"))
    wanted: ModelFormat = "skops" if first.startswith(b"PK\x03\x04") else "xgboost"
    wanted = "litert" if first[4:8] == b"TFL3" else wanted
    fault = fault_of(first, wanted)
    if fault is None and wanted == "skops" and b"data.pkl" in first:
        # torch.save writes a zip archive of pickles, beginning with NAME/data.pkl.
        fault = _NEVER_OPENED.format(what="a zip archive with a pickle, as torch.save writes it")
    if fault is not None:
        raise ModelNotLoadable(fault)


def _is_pickle(first: bytes) -> bool:
    # A pickle of protocol 2 to 5 begins like this; neither ONNX protobufs nor the other formats do.
    if first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    # Protocols 0 and 1 begin with the module and class of the object, or a mark before them.
    return re.match(rb"(\(?c|ccopy_reg|ccopyreg)[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n", first) is not None


def fault_of(first: bytes, wanted: ModelFormat) -> str | None:
    """Return what a file is by its first bytes, and the fix; None if it may be the wanted format.

    ``first`` holds at least 16 bytes of the file, if it has as many.
    """
    if wanted == "python":
        return None  # the user's own code reads the file
    if _is_pickle(first):
        return _PICKLE.format(format=wanted)
    for mark, fault in _MARKS:
        if first.startswith(mark):
            return fault
    if first.startswith(b"PK\x03\x04") and wanted != "skops":
        return _ARCHIVE
    if first[4:8] == b"TFL3" and wanted != "litert":
        return "the file is a LiteRT (TensorFlow Lite) model; set spec.model.format to litert"
    if first.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return _PAGE
    if wanted == "onnx" and first.startswith(b"tree\n"):
        return "the file is a LightGBM model; set spec.model.format to lightgbm"
    if wanted == "onnx" and b"learner" in first and first.startswith(b"{"):
        return "the file is an XGBoost model; set spec.model.format to xgboost"
    return None
