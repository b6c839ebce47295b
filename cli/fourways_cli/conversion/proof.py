"""Compares two models on the same records: the greatest difference, and the same classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fourways_runtime.scoring.columns import Array

from .errors import NotEqual

ABSOLUTE = 1e-5
RELATIVE = 1e-4
"""Tolerances, those of golden vectors."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a comparison found."""

    rows: int
    difference: float
    """The greatest absolute difference between two numbers."""

    classes: int | None
    """Number of rows with the same class; None if the model is no classifier."""


def compare_answers(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> Proof:
    """Compare the answers of a model with those of its conversion.

    Raises:
        NotEqual: a class, or a number by more than the tolerance, differs.

    """
    prediction, scores = ours["prediction"], ours.get("probabilities")
    label = _first(theirs, ("label", "output_label"))
    numbers = _first(theirs, ("probabilities", "output_probability", "variable"))
    if numbers is None and label is None:
        numbers = next(iter(theirs.values()))
    rows = len(prediction)
    if scores is None and label is not None and numbers is not None and _is_float(prediction):
        # XGBoost and LightGBM answer with the probabilities themselves.
        scores, prediction = prediction, label
        if scores.ndim == 1 or scores.shape[1] == 1:
            numbers = numbers[:, 1] if numbers.ndim == 2 else numbers
        else:
            prediction = scores.argmax(axis=1)
    if label is not None:
        _check_classes(np.asarray(prediction), np.asarray(label))
        expected = scores
    else:
        expected = np.asarray(prediction)
    difference = 0.0
    if expected is not None and numbers is not None:
        difference = _difference(np.asarray(expected, np.float64), np.asarray(numbers, np.float64))
    return Proof(rows, difference, rows if label is not None else None)


def _first(answers: Mapping[str, Array], names: tuple[str, ...]) -> Array | None:
    return next((answers[name] for name in names if name in answers), None)


def _is_float(values: Array) -> bool:
    return values.dtype.kind == "f"


def _check_classes(ours: Array, theirs: Array) -> None:
    if ours.dtype.kind == "b" and theirs.dtype.kind == "i":
        # ONNX has no labels of type bool: skl2onnx writes False and True as 0 and 1.
        ours = ours.astype(theirs.dtype)
    same = ours.reshape(-1).astype(str) == theirs.reshape(-1).astype(str)
    wrong = np.flatnonzero(~same)
    if len(wrong):
        raise NotEqual(
            f"{len(wrong):,} of {len(same):,} rows get another class, the first in row"
            f" {int(wrong[0])} of the sample"
        )


def _difference(ours: Array, theirs: Array) -> float:
    ours, theirs = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    if ours.shape != theirs.shape:
        raise NotEqual(
            f"the model answers {ours.shape[1]} numbers per row, its conversion {theirs.shape[1]}"
        )
    difference = np.abs(ours - theirs)
    # Not "difference > allowed": NaN must fail.
    within = difference <= ABSOLUTE + RELATIVE * np.abs(ours)
    if not within.all():
        wrong = np.flatnonzero(~within.all(axis=1))
        worst = float(np.nanmax(difference)) if not np.isnan(difference).all() else float("nan")
        raise NotEqual(
            f"{len(wrong):,} of {len(ours):,} rows differ by up to {worst:.3g}, the first in row"
            f" {int(wrong[0])} of the sample"
        )
    return float(difference.max()) if difference.size else 0.0
