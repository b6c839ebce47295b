"""What kind of file is this? Magika, a third-party model, used unchanged.

Nothing is trained: the model is the file inside the package magika (Google, Apache-2.0). This
module creates the golden vectors with magika's own Python API. They verify that our features and
the contract's ArgMax and Max match magika's.
"""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
from magika import Magika
from numpy.typing import NDArray

from . import magika_package
from .artifacts import Tolerance, Vector, plain, write_golden
from .file_bytes import tokens
from .real_files import by_kind

NAME = "file-type"
# The model computes a variance as E[x²] - E[x]², which cancels: onnxruntime sums a batch of one
# in a different order than a larger batch, and the scores differ by up to some thousandths.
EXPORTED = RETRAINED = Tolerance(absolute=0.01, relative=0.0)
VECTORS = 20


def build(folder: Path) -> None:
    """Compare with magika on real files, then write the model and golden vectors."""
    shutil.copyfile(magika_package.model(), folder / "model.onnx")
    vectors = ask_magika()
    agree(folder / "model.onnx", vectors)
    # One file per kind, so that twenty vectors have twenty labels; with high scores, so that the
    # order of a sum does not matter.
    sure = [vector for vector in vectors if vector["outputs"]["score"] > 0.6]
    kinds = {str(vector["outputs"]["label"]): vector for vector in reversed(sure)}
    write_golden(folder / "golden.jsonl", islice(reversed(kinds.values()), VECTORS))


def ask_magika() -> list[Vector]:
    """Return real files as golden vectors, scored by magika's Python API."""
    magika = Magika()
    vectors: list[Vector] = []
    for path in by_kind().values():
        content = tokens(path)
        if content is None:
            continue
        answer = magika.identify_path(path).prediction
        vectors.append(
            {
                "inputs": {"content": content.tolist()},
                # The model's own output; magika's `output` may fall back to txt or unknown.
                "outputs": {"label": str(answer.dl.label), "score": plain(answer.score)},
            }
        )
    return vectors


def agree(model: Path, vectors: list[Vector]) -> None:
    """Print how far the bare model with our features is from magika: file by file, and in one
    batch."""
    session = onnxruntime.InferenceSession(model)

    def ask(some: list[Vector]) -> list[dict[str, object]]:
        return answers({"target_label": session.run(None, tensors(some))[0]})

    truth = [vector["outputs"] for vector in vectors]
    kinds = len({output["label"] for output in truth})
    print(f"{len(vectors)} real files, {kinds} types according to magika")
    for how, answered in {
        "file by file": [answer for vector in vectors for answer in ask([vector])],
        "in one batch": ask(vectors),
    }.items():
        pairs = list(zip(truth, answered, strict=True))
        same = sum(wanted["label"] == got["label"] for wanted, got in pairs)
        furthest = max(abs(wanted["score"] - got["score"]) for wanted, got in pairs)
        print(f"{how}: {same} labels the same, scores at most {furthest:.1e} apart")


def answers(outputs: dict[str, NDArray[np.generic]]) -> list[dict[str, object]]:
    """Turn what onnxruntime returns into the contract's outputs."""
    labels = magika_package.labels()
    return [
        {"label": labels[int(row.argmax())], "score": float(row.max())}
        for row in outputs["target_label"]
    ]


def tensors(vectors: list[Vector]) -> dict[str, NDArray[np.generic]]:
    """Turn golden inputs into the model's tensor."""
    return {"bytes": np.array([vector["inputs"]["content"] for vector in vectors], np.int32)}
