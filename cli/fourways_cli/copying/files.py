"""The files of this machine that are to be copied."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_FILES = 10_000


class NoFiles(ValueError):
    """There is nothing to copy; the text says why."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file, its place below the volume, and what it holds."""

    path: Path
    relative: str
    size: int
    digest: str


def local_files(sources: Sequence[Path], into: str) -> list[LocalFile]:
    """Return the files of paths and folders, with their places below the volume.

    ``into`` is a folder of the volume if it ends with a slash, is empty, or there are several
    files; otherwise the name of the file.

    Raises:
        NoFiles: a path does not exist or cannot be read, or is an empty folder.

    """
    found: list[tuple[Path, str]] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(each for each in source.rglob("*") if each.is_file())
            found += [(each, str(each.relative_to(source))) for each in inside]
            if not inside:
                raise NoFiles(f"{source} has no files")
        elif source.is_file():
            found.append((source, source.name))
        else:
            raise NoFiles(f"{source} does not exist")
    if len(found) > MAX_FILES:
        raise NoFiles(f"{len(found):,} files; at most {MAX_FILES:,} are copied at once")
    is_folder = not into or into.endswith("/") or len(found) > 1 or sources[0].is_dir()
    return [
        _described(path, f"{into.rstrip('/')}/{name}".lstrip("/") if is_folder else into)
        for path, name in found
    ]


def _described(path: Path, relative: str) -> LocalFile:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
                size += len(part)
    except OSError as error:
        raise NoFiles(f"{path} cannot be read: {error.strerror}") from None
    return LocalFile(path, relative, size, digest.hexdigest())
