"""Reads a model and scores its sample in a process of its own, so that a crash can be reported.

The libraries of trees follow what a file says without checks: a damaged one ends the process that
reads it, without a word. ``python -m fourways_cli.first_manifest.trial MODEL MODE [SAMPLE]`` makes
the draft and throws it away; errors are left to whoever makes it again.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import cast

from fourways_api import Mode
from fourways_runtime.errors import ModelNotLoadable
from fourways_runtime.scoring.model.description import recognised

from .draft import make_draft
from .errors import NoManifest
from .model_source import model_file

_CRASHING = frozenset({"lightgbm", "xgboost"})
_SECONDS = 300


def check_crash(model: Path, sample: Path | None, mode: Mode) -> None:
    """Try a model whose library may crash. Raises NoManifest if it does, or does not return."""
    try:
        file, _ = model_file(model)
        if recognised(file) not in _CRASHING:
            return
    except (ModelNotLoadable, NoManifest, OSError):
        return
    given = [str(model), mode, *([str(sample)] if sample else [])]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, *given],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoManifest(f"{file}: the model does not answer within {_SECONDS} s") from None
    if done.returncode < 0:
        raise NoManifest(
            f"{file}: its library crashed (signal {-done.returncode}): the file is damaged; save"
            " the model again where you trained it"
        )


def main() -> None:
    """Make a draft as the arguments say, and throw it away."""
    model, mode, *sample = sys.argv[1:]
    warnings.simplefilter("ignore")
    with contextlib.suppress(Exception):
        make_draft(Path(model), sample=Path(sample[0]) if sample else None, mode=cast(Mode, mode))


if __name__ == "__main__":
    main()
