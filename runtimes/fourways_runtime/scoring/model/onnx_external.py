"""Copies the external weight files of an ONNX model to a private folder before they are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from fourways_runtime.beneath import open_model_file
from fourways_runtime.errors import FetchRefused, ModelNotLoadable, SourceError

_CHUNK = 1 << 20


def copy_external(locations: Iterable[str], root: Path, into: Path) -> None:
    """Copy each file from beneath ``root`` to the same place beneath ``into``.

    Raises ModelNotLoadable for a path that leaves the folder, a link, or anything but a regular
    file.
    """
    for location in sorted(locations):
        components = tuple(location.split("/"))
        if any(part in ("", ".", "..") for part in components) or "\0" in location:
            raise ModelNotLoadable(
                f"the model's weights {location[:128]!r} lie outside its folder;"
                " export it with weights beside it"
            )
        try:
            handle = open_model_file(root, components, "external data")
        except (FetchRefused, SourceError) as error:
            raise ModelNotLoadable(f"the model's weights cannot be read: {error}") from None
        target = into.joinpath(*components)
        with os.fdopen(handle, "rb") as source:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK)
