"""Real files that every machine with this project has: a few of each kind.

They come from the checkout, the standard library and packages that the runtime needs anyway. The
user's own files are not read.
"""

from __future__ import annotations

import os
import sysconfig
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = ("charts", "cli", "crds", "docs", "examples", "operator", "runtimes", "tests")
PACKAGES = ("numpy", "pyarrow", "onnxruntime", "magika", "pydantic", "rich")
LIBRARY = ("ensurepip", "idlelib", "json", "lib2to3", "msilib", "turtledemo", "venv")
OF_A_KIND = 8
AT_MOST = 400


def by_kind() -> dict[str, Path]:
    """Return up to AT_MOST files by a stable name, no more than OF_A_KIND with one suffix."""
    taken: Counter[str] = Counter()
    found: dict[str, Path] = {}
    for name, path in sorted({**_checkout(), **_library(), **_packages()}.items()):
        kind = path.suffix.lower() or path.name
        if taken[kind] < OF_A_KIND and len(found) < AT_MOST and path.is_file():
            taken[kind] += 1
            found[name] = path
    return found


def _checkout() -> dict[str, Path]:
    tops = (path for path in CHECKOUT.iterdir() if path.is_file() and path.name[0] != ".")
    paths = [*tops, *(path for name in FOLDERS for path in _walk(CHECKOUT / name))]
    return {
        f"fourways/{path.relative_to(CHECKOUT).as_posix()}": path
        for path in paths
        # Excludes files that are generated from this very list.
        if "artifacts/file-type" not in path.as_posix()
    }


def _library() -> dict[str, Path]:
    root = Path(sysconfig.get_path("stdlib"))
    return {
        f"python/{path.relative_to(root).as_posix()}": path
        for name in LIBRARY
        for path in _walk(root / name)
    }


def _packages() -> dict[str, Path]:
    found = {}
    for name in PACKAGES:
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        for file in package.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                found[file.as_posix()] = Path(str(package.locate_file(file)))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__pycache__")))
        yield from (Path(parent, file) for file in sorted(files))
