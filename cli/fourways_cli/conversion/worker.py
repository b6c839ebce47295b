"""The process that converts: ``python -m fourways_cli.conversion.worker REQUEST``.

It reads one JSON document, writes the converted model to the path in it, and prints one JSON
document: ``{"rows", "difference", "classes", "made_up"}`` or ``{"error", "code"}``.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from fourways_api import InputField
from fourways_runtime.errors import WorkloadError
from fourways_runtime.scoring.columns import Array, Columns
from fourways_runtime.scoring.inputs import bind_inputs
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.model.description import Description, describe, recognised
from fourways_runtime.scoring.model.extras import load_module
from fourways_runtime.scoring.model.hints import Hints
from fourways_runtime.scoring.model.onnx_model import load_onnx
from fourways_runtime.scoring.model.skops_model import model_of

from ..first_manifest.errors import NoManifest
from ..first_manifest.inputs import draft_inputs
from ..first_manifest.model_source import ModelSource, model_file
from ..first_manifest.probe import Answers, ask
from ..first_manifest.sample import Sample, read_sample
from ..output import FAILED, INVALID
from .converters import declaring, sklearn_to_onnx, trees_to_onnx
from .errors import NotConverted, NotEqual
from .estimators import load_checked
from .proof import Proof, compare_answers

ROWS = 10_000
"""Maximum number of rows on which a conversion is proven."""

_MAX_BYTES = 8 << 30


def convert(file: Path, sample: Path | None, out: Path) -> dict[str, Any]:
    """Convert a model, prove it and write it. Raises NotConverted, NotEqual or NoManifest."""
    path, example = model_file(file)
    kind = recognised(path)
    if kind == "onnx":
        raise NotConverted("it is an ONNX model already")
    if kind in ("xgboost", "lightgbm"):
        # With their estimators, which the converter asks for and what describes a model leaves out.
        load_module(kind, kind)
    table = read_sample(sample) if sample is not None else example
    estimator = load_checked(path, _MAX_BYTES) if kind == "skops" else None
    if estimator is None:
        described = describe(path, max_bytes=_MAX_BYTES)
    else:
        described = Description(path, kind, model_of(estimator, threads=1), Hints())
    source = ModelSource(described, path.stem)
    draft = draft_inputs(source, table)
    answers = ask(draft, described.model, table, rows=ROWS)
    fault: NotEqual | None = None
    for wide in (False, True) if estimator is not None else (False,):
        if estimator is not None:
            texts = [each.model_name for each in draft.fields if each.type == "string"]
            raw = sklearn_to_onnx(estimator, described.model, texts, wide=wide)
        else:
            raw = trees_to_onnx(path, kind, described.model)
        out.write_bytes(raw)
        fields = tuple(InputField.model_validate(each.spec()) for each in draft.fields)
        theirs = _answers(fields, load_onnx(out, threads=1), answers)
        try:
            proof = compare_answers(answers.tensors, theirs)
        except NotEqual as error:
            # Numbers that training saw as float64 may fall on the other side of a threshold.
            fault = error
            continue
        out.write_bytes(declaring(raw, theirs))
        return _said(proof, table)
    raise NotEqual(str(fault))


def _answers(fields: tuple[InputField, ...], model: Model, answers: Answers) -> dict[str, Array]:
    columns: Columns = answers.columns
    tensors = {}
    for feed in bind_inputs(fields, model.inputs):
        tensors[feed.name], _ = feed.fill(columns, answers.records)
    return {name: np.asarray(each) for name, each in model.predict(tensors).items()}


def _said(proof: Proof, table: Sample | None) -> dict[str, Any]:
    return {
        "rows": proof.rows,
        "difference": proof.difference,
        "classes": proof.classes,
        "made_up": table is None,
    }


def _other_way(file: Path) -> str:
    """Return what to do with a model that was not converted, if it can be served as it is."""
    path, _ = model_file(file)
    try:
        describe(path, max_bytes=_MAX_BYTES)
    except WorkloadError:
        return ""
    return f"; it needs no conversion: fourways serve {file}"


def main() -> None:
    """Convert what standard input asks for."""
    # Converters and libraries warn about versions and names; the proof says what matters.
    warnings.simplefilter("ignore")
    request = orjson.loads(sys.stdin.buffer.read())
    model, sample = Path(request["model"]), request["sample"]
    try:
        said = convert(model, Path(sample) if sample else None, Path(request["out"]))
    except NotEqual as error:
        fault = f"the converted model is not used: {error}{_other_way(model)}"
        said = {"error": fault, "code": FAILED}
    except NotConverted as error:
        said = {"error": f"{error}{_other_way(model)}", "code": INVALID}
    except (NoManifest, WorkloadError, OSError) as error:
        said = {"error": str(error), "code": INVALID}
    sys.stdout.buffer.write(b"\n" + orjson.dumps(said) + b"\n")


if __name__ == "__main__":
    main()
