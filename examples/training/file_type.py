"""What kind of file is this? Magika, a model nobody here wrote, taken as it is.

Nothing is trained: the model is the file inside the package magika (Google, Apache-2.0). What is
made here are the golden vectors, answered by magika's own Python API, which prove that our
features and the contract's ArgMax and Max mean what magika means.
"""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
from magika import Magika
from numpy.typing import NDArray

from . import magika_package
from .artifacts import Tolerance, Vector, plain, write_golden
from .file_bytes import tokens
from .real_files import by_kind

NAME = "file-type"
RETRAINED = Tolerance(absolute=1e-4, relative=0.0)
COMPARED = 120
VECTORS = 20


def build(folder: Path) -> None:
    """Compare with magika on real files, then write the model and golden vectors."""
    shutil.copyfile(magika_package.model(), folder / "model.onnx")
    vectors = list(islice(ask_magika(), COMPARED))
    agree(folder / "model.onnx", vectors)
    # One file a kind, so that twenty vectors show twenty answers.
    kinds = {str(vector["outputs"]["label"]): vector for vector in reversed(vectors)}
    write_golden(folder / "golden.jsonl", islice(reversed(kinds.values()), VECTORS))


def ask_magika() -> list[Vector]:
    """Return real files as golden vectors, answered by magika's Python API."""
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
                # The model's own answer; magika's `output` may fall back to txt or unknown.
                "outputs": {"label": str(answer.dl.label), "score": plain(answer.score)},
            }
        )
    return vectors


def agree(model: Path, vectors: list[Vector]) -> None:
    """Print on how many files the bare model, fed by us, says what magika says."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model)
    scores = session.run(None, tensors(vectors))[0]
    answered = answers({"target_label": scores})
    same = sum(
        vector["outputs"]["label"] == answer["label"]
        and abs(vector["outputs"]["score"] - answer["score"]) < 1e-5
        for vector, answer in zip(vectors, answered, strict=True)
    )
    kinds = len({vector["outputs"]["label"] for vector in vectors})
    print(f"{same} of {len(vectors)} real files of {kinds} types: same label and score as magika")


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
