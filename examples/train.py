"""Train and export an example's model: ``python examples/train.py NAME [--check]``.

Writes the model, the table to score and the golden vectors to ``artifacts/NAME`` and pins their
digests in ``NAME.yaml``. With --check nothing is written: the committed files must have the pinned
digests and reproduce the golden vectors, and so must a newly trained model. Needs the dependency
group ``train``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from training.artifacts import (
    ARTIFACTS,
    Tolerance,
    differing,
    disagreement,
    pin,
    read_golden,
)

EXAMPLES = (
    "churn",
    "segmentation",
    "sales-forecast",
    "recommendations",
    "file-type",
    "come-back",
    "water-flow",
)


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=EXAMPLES)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    example = importlib.import_module(f"training.{options.name.replace('-', '_')}")
    problems = check(example) if options.check else train(example)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def train(example: ModuleType) -> list[str]:
    """Build an example's files in place and pin their digests."""
    folder = ARTIFACTS / example.NAME
    folder.mkdir(parents=True, exist_ok=True)
    example.build(folder)
    pin(example.NAME)
    return wrong_answers(example, folder / "model.onnx", example.EXPORTED)


def check(example: ModuleType) -> list[str]:
    """Report faults of an example's files, and differences from a newly trained model."""
    # If the files are not the pinned ones, a comparison is pointless.
    if problems := differing(example.NAME):
        return problems
    problems = wrong_answers(example, ARTIFACTS / example.NAME / "model.onnx", example.EXPORTED)
    with tempfile.TemporaryDirectory() as folder:
        example.build(Path(folder))
        problems += wrong_answers(example, Path(folder, "model.onnx"), example.RETRAINED)
    return problems


def wrong_answers(example: ModuleType, model: Path, tolerance: Tolerance) -> list[str]:
    """Score the committed golden vectors with a model; report the ones with different outputs."""
    import onnxruntime

    vectors = read_golden(ARTIFACTS / example.NAME / "golden.jsonl")
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, example.tensors(vectors)), strict=True))
    found = (
        disagreement(vector["outputs"], answer, tolerance)
        for vector, answer in zip(vectors, example.answers(outputs), strict=True)
    )
    return [f"{model}, golden vector {i}: {text}" for i, text in enumerate(found, 1) if text]


if __name__ == "__main__":
    sys.exit(main())
