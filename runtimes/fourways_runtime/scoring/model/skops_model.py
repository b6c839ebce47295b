"""scikit-learn models in the skops format.

skops builds only types it trusts; in addition to its own list, we trust the few in AUDITED_TYPES.
Other types are excluded on purpose: the compiled ``Tree``, ``TreePredictor`` and ``KDTree`` follow
indices from the file without bounds checks, so a crafted file reads and writes past its arrays.
Forests, boosted trees and nearest-neighbour models must be converted to ONNX.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fourways_api.display import displayed
from fourways_runtime.errors import ModelNotLoadable

from .extras import load_module
from .frame_model import FrameModel
from .hints import Hints, texts
from .library_errors import library_error
from .matrix_model import MatrixModel

_KERNELS = (
    *("Sum", "Product", "Exponentiation", "ConstantKernel", "WhiteKernel", "RBF", "Matern"),
    *("RationalQuadratic", "ExpSineSquared", "DotProduct"),
)
_SCORES = ("f_classif", "f_regression", "chi2", "r_regression")

AUDITED_TYPES = (
    # Plain Python with numbers and arrays; a fitted network keeps one but predicts without it.
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    # The type of an empty array in the file; imputers and discretizers keep the one of training.
    "numpy.dtype",
    # Plain Python over estimators, each of which is checked itself.
    "sklearn.utils._bunch.Bunch",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    # Arithmetic of numpy and scipy on the rows, with numbers as parameters.
    *(f"sklearn.gaussian_process.kernels.{name}" for name in _KERNELS),
    # Functions of two arrays, which only training calls.
    *(f"sklearn.feature_selection._univariate_selection.{name}" for name in _SCORES),
)
"""Types trusted in addition to skops' own list, each audited for what its state can do."""

_MAX_ENTRIES = 10_000
# numpy.void(N) and numpy.bytes_(N) allocate N zero bytes: a few hundred bytes of file fill memory.
_ALLOCATING = frozenset({"void", "bytes_", "bytes"})


def load_skops(path: Path, *, threads: int, max_bytes: int) -> MatrixModel | FrameModel:
    """Load a skops file. ``max_bytes`` limits its unpacked size. Raises ModelNotLoadable."""
    # The pipeline matches columns by name before it makes a matrix. scikit-learn would warn about
    # a matrix without names at every call, which fills the log and takes as long as the prediction.
    warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
    return model_of(load_estimator(path, max_bytes), threads)


def skops_hints(path: Path, *, max_bytes: int) -> Hints:
    """Read the classes of a skops model, and the categories of its encoders by column name."""
    estimator = load_estimator(path, max_bytes)
    categories: dict[str, tuple[str, ...]] = {}
    for step in _steps(estimator):
        names, known = getattr(step, "feature_names_in_", None), getattr(step, "categories_", None)
        if names is None or not isinstance(known, list):
            continue
        for name, values in zip(names, known, strict=False):
            kind = getattr(values, "dtype", None)
            if kind is not None and kind.kind in "OU":
                categories[str(name)] = texts(values.tolist())
    classes = getattr(estimator, "classes_", None)
    labels = texts(classes.tolist()) if isinstance(classes, np.ndarray) else ()
    return Hints(labels=labels, categories=categories, notes=(type(estimator).__name__,))


def _steps(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and everything that it is composed of."""
    yield estimator
    for _, step in getattr(estimator, "steps", ()):
        yield from _steps(step)
    for _, step, _ in getattr(estimator, "transformers_", ()):
        yield from _steps(step)


def load_estimator(
    path: Path,
    max_bytes: int,
    *,
    trusted: Collection[str] = AUDITED_TYPES,
    fix: str = "export it as ONNX (fourways convert)",
) -> Any:
    """Load what a skops file holds, if it holds only skops' own and the ``trusted`` types.

    ``fix`` is what to do about other types.

    Raises:
        ModelNotLoadable: it holds others, is damaged, or unpacks to more than ``max_bytes``.

    """
    skops = load_module("skops.io", "sklearn")
    _check_archive(path, max_bytes)
    try:
        untrusted = set(skops.get_untrusted_types(file=path)) - set(trusted)
    except Exception as error:
        raise ModelNotLoadable(
            f"the file is not a skops model, or it is damaged ({library_error(error)})"
        ) from error
    if untrusted:
        shown = displayed(", ".join(sorted(untrusted)), 300)
        raise ModelNotLoadable(f"the model holds types that are not trusted: {shown}; {fix}")
    try:
        return skops.load(path, trusted=list(trusted))
    except Exception as error:
        raise ModelNotLoadable(
            f"skops does not load the model ({library_error(error)}); check that it was saved "
            "with this version of scikit-learn"
        ) from error


def _check_archive(path: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > _MAX_ENTRIES or total > max_bytes:
                raise ModelNotLoadable(
                    f"the file unpacks to {len(entries)} entries and {total} bytes;"
                    f" {_MAX_ENTRIES} and {max_bytes} are allowed"
                )
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RecursionError):
        raise ModelNotLoadable("the file is not a skops model, or it is damaged") from None
    _check_arrays(schema)


def _check_arrays(schema: Any) -> None:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            module, name = str(node.get("__module__")), str(node.get("__class__"))
            if module.partition(".")[0] == "numpy" and name in _ALLOCATING:
                raise ModelNotLoadable(f"the model holds a numpy.{name}; models need none")
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def model_of(estimator: Any, threads: int) -> MatrixModel | FrameModel:
    """Return a fitted estimator as a model. Raises ModelNotLoadable if it does not predict."""
    features = getattr(estimator, "n_features_in_", None)
    if not isinstance(features, int) or features < 1 or not hasattr(estimator, "predict"):
        raise ModelNotLoadable(
            "the file contains no fitted estimator that predicts from columns; export a pipeline"
            " that reads texts as ONNX (skl2onnx)"
        )
    parallel = {
        name: threads
        for name in estimator.get_params()
        if name == "n_jobs" or name.endswith("__n_jobs")
    }
    estimator.set_params(**parallel)
    predictors = {"prediction": estimator.predict}
    if hasattr(estimator, "predict_proba"):
        predictors["probabilities"] = estimator.predict_proba
    names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
    try:
        return MatrixModel(predictors, features=features, dtype="float64", columns=names)
    except ModelNotLoadable:
        # A model that may select columns by name, such as a ColumnTransformer, needs a table with
        # names. Any may have been trained on values among which zero is none.
        if len(names) != features:
            return MatrixModel(predictors, features=features, dtype="float64", probed=False)
        return FrameModel(predictors, names)
