"""Find the model inside the installed magika package, without importing the package."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

MODEL = "magika/models/standard_v3_3"


def folder() -> Path:
    """Return the folder with the model and its configuration.

    Raises:
        SystemExit: the package is not installed, or contains another model.
    """
    try:
        found = Path(str(distribution("magika").locate_file(MODEL)))
    except PackageNotFoundError:
        raise SystemExit(
            "the package magika is not installed: pip install 'magika>=1.0.1,<1.1'"
        ) from None
    if not (found / "model.onnx").is_file():
        raise SystemExit(f"this magika has no {MODEL}: pip install 'magika>=1.0.1,<1.1'")
    return found


def model() -> Path:
    """Return the model file."""
    return folder() / "model.onnx"


def labels() -> list[str]:
    """Return the model's labels in the order of its scores."""
    config = json.loads((folder() / "config.min.json").read_text("utf-8"))
    return list(config["target_labels_space"])
