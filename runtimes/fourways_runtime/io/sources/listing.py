"""Where the files of a table are: its filesystem, and the files in a folder or of a glob.

The policy that guards access belongs to the fetcher. Files are listed only on demand: a worker that
receives the list of its files does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fourways_api import BatchSource, FetchPolicy, Paths
from fourways_runtime.errors import SourceError

from ..fetch.credentials import SecretWatch
from ..fetch.filesystems import filesystem
from ..fetch.location import Location
from .files import Files
from .partitions import Filter, TableFile, constants, expanded, found_files, kept

_COMPRESSED = ("", ".gz", ".zst", ".bz2")
SUFFIXES = {
    "Parquet": (".parquet", ".parq", ".pq"),
    "CSV": tuple(f".csv{end}" for end in _COMPRESSED),
    "JSONLines": tuple(
        f".{kind}{end}" for kind in ("jsonl", "ndjson", "json") for end in _COMPRESSED
    ),
}


def open_backend(
    source: BatchSource, *, policy: FetchPolicy, paths: Paths
) -> tuple[Location, Any, str]:
    """Return the location of a table, an fsspec filesystem for it, and the path in it."""
    location = Location.parse(source.uri or "")
    secret = _secret(source, paths)
    backend, path = filesystem(source.uri or "", credentials=secret, policy=policy, paths=paths)
    return location, backend, path


def renewal(source: BatchSource, *, policy: FetchPolicy, paths: Paths) -> Callable[[], Any]:
    """Return a function that opens a table's filesystem again if its Secret was rotated since.

    It returns None if not. A worker calls it before each split, so that a run outlives its tokens.
    """
    watch = SecretWatch(_secret(source, paths))

    def renewed() -> Any:
        return open_backend(source, policy=policy, paths=paths)[1] if watch.rotated() else None

    return renewed


def secret_name(source: BatchSource) -> str:
    """Return the name of the Secret of a table's credentials; empty without one."""
    return source.credentials.secret_name if source.credentials else ""


def _secret(source: BatchSource, paths: Paths) -> Path | None:
    if source.credentials is None:
        return None
    return Path(paths.secrets_root) / source.credentials.secret_name


def find_files(source: BatchSource, *, policy: FetchPolicy, paths: Paths) -> Files:
    """Return a table's files by name, without hidden ones (whose names begin with . or _)."""
    renewed = renewal(source, policy=policy, paths=paths)
    location, backend, path = open_backend(source, policy=policy, paths=paths)
    filters = {each.column: frozenset(each.values) for each in source.filter}

    def find() -> tuple[TableFile, ...]:
        found = _listed(backend, path, location, SUFFIXES[source.format], filters)
        parts = tuple(TableFile(name, constants(name), info) for name, info in found.items())
        return kept(parts, filters, location.shown)

    return Files(location, backend, find, renewed, secret_name(source))


def _listed(
    backend: Any, path: str, location: Location, suffixes: tuple[str, ...], filters: Filter
) -> dict[str, Mapping[str, Any] | None]:
    """Return the files of a table by name, with their entries in the listing."""
    if location.scheme in ("http", "https"):
        return {path: None}
    if location.pattern is not None:
        path = location.pattern
        matches: dict[str, Any] = {}
        for pattern in expanded(path, filters):
            matches |= backend.glob(pattern, detail=True)
        found: dict[str, Any] = {}
        for name, entry in matches.items():
            if _is_hidden(name, path) or name.endswith("/"):
                continue
            if entry["type"] == "file":
                found[name] = entry
            elif name.lower().endswith(suffixes):  # a table that Spark has written
                found |= _of_format(found_files(backend, name, filters), name, suffixes)
        if not found:
            raise SourceError(f"{location.shown}: no file has this name{_where(filters)}")
        return dict(sorted(found.items()))
    info = backend.info(path)
    if info["type"] != "directory":
        return {path: info}
    everything = found_files(backend, path, filters)
    found = _of_format(everything, path, suffixes)
    if not found:
        there = ", ".join(PurePosixPath(name).name for name in list(everything)[:5]) or "nothing"
        raise SourceError(
            f"{location.shown}: the folder has no file that ends with {suffixes[0]}"
            f"{_where(filters)}; there is {there}"
        )
    return found


def _of_format(
    entries: Mapping[str, Mapping[str, Any]], folder: str, suffixes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the files beneath a folder that belong to its table."""
    root = PurePosixPath(folder)
    return {
        name: entry
        for name, entry in entries.items()
        if name.lower().endswith(suffixes)
        and not any(map(_hides, PurePosixPath(name).relative_to(root).parts))
    }


def _hides(part: str) -> bool:
    """Tell whether a name marks something hidden: temporary, uncommitted or metadata.

    The rule is that of Hadoop and Spark: ``.x`` and ``_x``, except the folder of a column
    ``_x=VALUE``.
    """
    return part.startswith(".") or (part.startswith("_") and "=" not in part)


def _is_hidden(name: str, pattern: str) -> bool:
    """Tell whether a file that a glob finds is hidden and not named explicitly by the pattern."""
    segments = pattern.strip("/").split("/")
    if any(s.startswith(".") for s in segments if any(mark in s for mark in "*?[")):
        return True  # a name with a dot is spelt out or not read
    if any(_hides(segment) for segment in segments if any(mark in segment for mark in "*?[")):
        return False
    spelt_out = {segment for segment in segments if _hides(segment)}
    return any(_hides(part) and part not in spelt_out for part in PurePosixPath(name).parts)


def _where(filters: Filter) -> str:
    if not filters:
        return ""
    asked = "; ".join(f"{name} = {', '.join(sorted(of)[:5])}" for name, of in filters.items())
    return f" where {asked}"
