"""The files of a table: one, a folder's, or a glob's, wherever they are.

Owns finding them and the words for what reading them raises. Getting at their bytes, and the policy
that guards it, is the fetcher's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from fourways_api import BatchSource, FetchPolicy, Paths

from ..errors import SourceError, WorkloadError
from ..fetch import filesystem
from ..fetch.location import Location
from ..fetch.objects import translated

SUFFIXES = {
    "Parquet": (".parquet", ".parq", ".pq"),
    "CSV": (".csv", ".csv.gz", ".csv.zst", ".csv.bz2"),
}


_FSSpecHandler: Any = pafs.FSSpecHandler  # Its stub calls it abstract.


class _Handler(_FSSpecHandler):  # type: ignore[misc]
    """Opens files without asking first whether they are there.

    fsspec answers no to that whenever asking fails, so an unreachable server would look like a
    missing file, and the run would not be tried again.
    """

    def open_input_file(self, path: str) -> Any:
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    open_input_stream = open_input_file


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one table, in the order they are read."""

    location: Location
    filesystem: Any
    """A ``pyarrow.fs.FileSystem``."""

    paths: tuple[str, ...]

    def told(self, path: str) -> str:
        """Name a file for people."""
        return self.location.shown if len(self.paths) == 1 else PurePosixPath(path).name

    @contextmanager
    def reading(self, path: str | None = None) -> Iterator[None]:
        """Turn what reading raises into our errors, naming the file."""
        name = self.location.shown if path is None else self.told(path)
        with translated(self.location):
            try:
                yield
            except WorkloadError:
                raise
            except pa.ArrowException as error:
                raise SourceError(f"{name}: {_line(error)}") from None
            except OSError as error:
                # Arrow's own, for damaged files; the operating system's have a number.
                if type(error) is OSError and error.errno is None:
                    raise SourceError(f"{name}: {_line(error)}") from None
                raise


def find_files(source: BatchSource, *, policy: FetchPolicy, paths: Paths) -> Files:
    """List a table's files by name; hidden ones (``.`` or ``_`` in front) are not part of it.

    Raises:
        SourceError: there is none.

    """
    location = Location.parse(source.uri)
    secret = None
    if source.credentials is not None:
        secret = Path(paths.secrets_root) / source.credentials.secret_name
    backend, path = filesystem(source.uri, credentials=secret, policy=policy, paths=paths)
    with translated(location):
        names = _listed(backend, path, location, SUFFIXES[source.format])
    wrapped: Any = pafs.PyFileSystem(_Handler(backend))
    return Files(location, wrapped, tuple(names))


def _listed(backend: Any, path: str, location: Location, suffixes: tuple[str, ...]) -> list[str]:
    if location.scheme in ("http", "https"):
        return [path]
    if any(mark in path for mark in "*?["):
        matches = backend.glob(path, detail=True)
        found = sorted(name for name, entry in matches.items() if entry["type"] == "file")
        if not found:
            raise SourceError(f"{location.shown}: no file is named so")
        return found
    if backend.info(path)["type"] != "directory":
        return [path]
    everything = sorted(backend.find(path))
    root = PurePosixPath(path)
    found = [
        name
        for name in everything
        if name.endswith(suffixes)
        and not any(
            part.startswith((".", "_")) for part in PurePosixPath(name).relative_to(root).parts
        )
    ]
    if not found:
        there = ", ".join(PurePosixPath(name).name for name in everything[:5]) or "nothing"
        raise SourceError(
            f"{location.shown}: the folder has no file that ends with {suffixes[0]}; "
            f"there is {there}"
        )
    return found


def _line(error: Exception) -> str:
    """Return an Arrow error's first line: the rest may quote the data."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
