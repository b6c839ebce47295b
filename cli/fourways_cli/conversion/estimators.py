"""Loads scikit-learn estimators of skops files that hold trees or neighbour searches.

The runtime refuses these files because compiled code follows indices of the file without bounds
checks. Here each index is checked before any code follows one, and the searches of neighbours are
replaced: the estimator then compares with all its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fourways_runtime.errors import ModelNotLoadable
from fourways_runtime.scoring.model.skops_model import AUDITED_TYPES, load_estimator

_CHECKED_TYPES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Types whose contents are checked here."""

_REPLACED_TYPES = (
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._ball_tree.BallTree",
    *(
        f"sklearn.metrics._dist_metrics.{name}Distance{bits}"
        for name in ("Euclidean", "Manhattan", "Minkowski", "Chebyshev", "SEuclidean")
        for bits in ("64", "32")
    ),
)
"""Types that are built and then never used."""

_FIX = "export it as ONNX where you trained it (skl2onnx), or leave out the step that needs them"
_DAMAGED = "the model's trees are damaged: {}; train and save the model again"
_MAX_OBJECTS = 1_000_000


def load_checked(path: Path, max_bytes: int) -> Any:
    """Load an estimator and check its trees. Raises ModelNotLoadable."""
    trusted = (*AUDITED_TYPES, *_CHECKED_TYPES, *_REPLACED_TYPES)
    estimator = load_estimator(path, max_bytes, trusted=trusted, fix=_FIX)
    features = getattr(estimator, "n_features_in_", None)
    for each in _objects(estimator):
        kind = type(each).__name__
        if kind == "Tree":
            _check_tree(each)
        elif kind == "TreePredictor":
            _check_predictor(each, features)
        elif getattr(each, "_tree", None) is not None and hasattr(each, "_fit_method"):
            each._tree, each._fit_method = None, "brute"
    return estimator


def _objects(root: Any) -> Iterator[Any]:
    """Yield every object that an estimator holds, at any depth."""
    waiting, seen = [root], set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen or isinstance(each, (str, bytes, int, float)):
            continue
        seen.add(id(each))
        if len(seen) > _MAX_OBJECTS:
            raise ModelNotLoadable(_DAMAGED.format("they hold too many objects"))
        if isinstance(each, np.ndarray):
            waiting.extend(each.reshape(-1).tolist() if each.dtype == object else ())
            continue
        yield each
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple)):
            waiting.extend(each)
        waiting.extend(getattr(each, "__dict__", {}).values())


def _check_tree(tree: Any) -> None:
    nodes = int(tree.node_count)
    # Beyond the capacity, the arrays below would read memory that is not theirs.
    if not 0 < nodes <= int(tree.capacity):
        raise ModelNotLoadable(_DAMAGED.format("a count of nodes is wrong"))
    left, right = np.asarray(tree.children_left), np.asarray(tree.children_right)
    _check_children(left, right, left == -1)
    inner = left != -1
    features = np.asarray(tree.feature)[inner]
    if np.any((features < 0) | (features >= tree.n_features)):
        raise ModelNotLoadable(_DAMAGED.format("a node reads a column that does not exist"))
    if np.any(right[~inner] != -1):
        raise ModelNotLoadable(_DAMAGED.format("a leaf has a child"))


def _check_predictor(predictor: Any, features: Any) -> None:
    nodes = np.asarray(predictor.nodes)
    leaf = nodes["is_leaf"].astype(bool)
    _check_children(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), leaf)
    columns = nodes["feature_idx"][~leaf]
    if not isinstance(features, int) or np.any((columns < 0) | (columns >= features)):
        raise ModelNotLoadable(_DAMAGED.format("a node reads a column that does not exist"))
    sets = nodes["bitset_idx"][~leaf & nodes["is_categorical"].astype(bool)]
    known = min(len(predictor.raw_left_cat_bitsets), len(predictor.binned_left_cat_bitsets))
    if np.any(sets >= known):
        raise ModelNotLoadable(_DAMAGED.format("a node reads categories that do not exist"))


def _check_children(left: Any, right: Any, leaf: Any) -> None:
    """Check that children are in the tree and after their parent, so that no path is a circle."""
    at = np.arange(len(left))
    for child in (left, right):
        if np.any(~leaf & ((child <= at) | (child >= len(left)))):
            raise ModelNotLoadable(_DAMAGED.format("a node has a child that does not exist"))
