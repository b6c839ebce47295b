"""Metrics by their definitions, pair by pair and label by label: what an offline count expects.

scikit-learn's take seconds to import. tests/unit/test_quality.py holds these against them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def auc(labels: Any, predictions: Any) -> float:
    """Return the share of pairs of a 1 and a 0 in which the 1 has the larger prediction."""
    ahead = predictions[labels == 1][:, None] - predictions[labels == 0][None, :]
    return float(np.mean((ahead > 0) + 0.5 * (ahead == 0)))


def log_loss(labels: Any, predictions: Any) -> float:
    """Return the mean of -log of what was predicted for the label that came."""
    least = np.finfo(np.float64).eps
    told = np.where(labels == 1, predictions, 1 - predictions)
    return float(-np.log(np.clip(told, least, 1 - least)).mean())


def mae(labels: Any, predictions: Any) -> float:
    """Return the mean distance."""
    return float(np.mean(abs(labels - predictions)))
