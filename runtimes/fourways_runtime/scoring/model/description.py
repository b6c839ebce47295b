"""What a model file says about itself: its format, tensors and hints.

This is the only reader for that purpose. It recognises the format by the file's content, never by
its name, and loads the model with the loaders that serve it: what it describes is what will run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from fourways_api.model import ModelFormat, ModelReference
from fourways_runtime.errors import ModelNotLoadable

from . import FORMATS, LoadRequest, load
from .base import Model
from .hints import Hints
from .row_by_row import RowByRow
from .sniff import first_bytes, refuse_foreign

_ONE_ROW = "fixed to a batch of one: called for each record, so records gain nothing together"


@dataclass(frozen=True, slots=True)
class Description:
    """A model that was loaded, and what its file says about it."""

    path: Path
    format: ModelFormat
    model: Model
    hints: Hints


def recognised(path: Path) -> ModelFormat:
    """Return the format of a model file.

    Raises:
        ModelNotLoadable: it is in none, or in one that is never loaded, such as a pickle; the
            message names the way out.

    """
    first = first_bytes(path)
    refuse_foreign(first, path.name)
    for name, each in FORMATS.items():
        if each.recognises(first):
            return cast(ModelFormat, name)
    known = ", ".join(name for name in FORMATS if name != "python")
    raise ModelNotLoadable(f"the file is no model of a known format ({known})")


def describe(path: Path, *, max_bytes: int, threads: int = 1) -> Description:
    """Load a model file and read what it says about itself.

    ``max_bytes`` is the most that a packed file may unpack to.

    Raises:
        ModelNotLoadable: as :func:`recognised` and :func:`load`.
        ConfigError: the library that loads the format is not installed.

    """
    kind = recognised(path)
    reference = ModelReference(
        uri=path.resolve().as_uri(),
        version="1",
        format=kind,
        max_size_mi_b=max(1, max_bytes >> 20),
        allow_external_data=True,
    )
    root = path.resolve().parent
    model = load(path, reference, threads=threads, external_root=root)
    hints = FORMATS[kind].hints(LoadRequest(path, reference, threads, root))
    if isinstance(model, RowByRow):
        hints = replace(hints, notes=(*hints.notes, _ONE_ROW))
    return Description(path, kind, model, hints)
