"""Tables in Delta Lake: the Parquet files that make up a version of the table.

This module reads the log, with the library deltalake. The fetcher first copies the log to this
host, so that its policy holds: no link is followed, only the Secret's credentials are used, and
only servers that the policy allows are contacted. The files are Parquet, and are read as such; a
worker that receives the list of its files does not read the log.

Files never change once they are in the log; one that a vacuum removes during the run is reported as
"gone".
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from fourways_api import BatchSource, FetchPolicy, Paths
from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError, SourceError

from .files import FILES_AT_ONCE, Files
from .listing import open_backend, renewal, secret_name
from .partitions import NULL, Filter, TableFile, kept

LOG = "_delta_log"
MAX_LOG_BYTES = 2 * 2**30
"""Maximum size of a log that is copied."""

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(
    r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\.[0-9a-f-]{36})?\.(?:parquet|json)"
)
# Features that a reader may ignore if it does not know them, and those checked one by one.
_HARMLESS = frozenset(
    {
        "timestampNtz",
        "v2Checkpoint",
        "vacuumProtocolCheck",
        "typeWidening",
        "typeWidening-preview",
        "columnMapping",
        "deletionVectors",
    }
)


def delta_files(source: BatchSource, *, policy: FetchPolicy, paths: Paths) -> Files:
    """Return the files of a Delta table's newest version; the log is read when they are listed.

    Raises:
        ConfigError: the library is not installed.

    """
    deltalake()
    renewed = renewal(source, policy=policy, paths=paths)
    location, backend, path = open_backend(source, policy=policy, paths=paths)
    filters = {each.column: frozenset(each.values) for each in source.filter}
    files = Files(location, backend, lambda: (), secret=secret_name(source))

    def find() -> tuple[TableFile, ...]:
        with tempfile.TemporaryDirectory(prefix="fourways-delta-") as folder:
            copy_log(backend, path, Path(folder), location.shown)
            with files.reading(location.shown):
                parts = _parts(folder, path, location.shown, filters)
                chosen = kept(parts, filters, location.shown)
                return chosen if files.local else _with_entries(backend, chosen)

    return Files(location, backend, find, renewed, secret_name(source))


def deltalake() -> Any:
    """Return the library. Raises ConfigError."""
    try:
        import deltalake as library
    except ImportError:
        raise ConfigError(
            f"a Delta table needs a package that is not installed: {install_command('delta')}"
        ) from None
    return library


def copy_log(backend: Any, path: str, into: Path, shown: str) -> int:
    """Copy the part of a table's log for its newest version: a checkpoint and later commits.

    Returns the version. Raises SourceError.
    """
    names = {}
    try:
        listed = backend.ls(f"{path.rstrip('/')}/{LOG}", detail=True)
    except (FileNotFoundError, SourceError):
        listed = []
    for entry in listed:
        if entry["type"] == "file":
            names[str(entry["name"]).rpartition("/")[2]] = entry
    commits = sorted(int(found[1]) for name in names if (found := _COMMIT.fullmatch(name)))
    since, checkpoint = _checkpoint(names)
    wanted = [*checkpoint, *(f"{n:020}.json" for n in commits if n >= since)]
    if not wanted:
        raise SourceError(f"{shown}: there is no Delta table")
    target = into / LOG
    target.mkdir(parents=True)
    size = sum(int(names[name]["size"] or 0) for name in wanted)
    if size > MAX_LOG_BYTES:
        raise SourceError(f"{shown}: the table's log is larger than {MAX_LOG_BYTES} bytes")
    for name in wanted:
        with backend.open(names[name]["name"], "rb") as source, (target / name).open("wb") as copy:
            while piece := source.read(1 << 20):
                copy.write(piece)
    return max([since, *commits])


def _checkpoint(names: dict[str, Any]) -> tuple[int, list[str]]:
    """Return the newest complete checkpoint: its version and its files."""
    found: dict[tuple[int, int], list[str]] = {}
    for name in names:
        matched = _CHECKPOINT.fullmatch(name)
        if matched:
            found.setdefault((int(matched[1]), int(matched[3] or 1)), []).append(name)
    whole = [(version, of) for version, of in found if len(found[version, of]) >= of]
    if not whole:
        return 0, []
    newest = max(whole)
    return newest[0], sorted(found[newest])[: newest[1]]


def _parts(folder: str, path: str, shown: str, filters: Filter) -> tuple[TableFile, ...]:
    library = deltalake()
    try:
        table = library.DeltaTable(folder)
        _check_features(table, shown)
        added: Any = pa.table(table.get_add_actions(flatten=False))
        columns = pa.schema(table.schema().to_arrow()).names
        partitioned = table.metadata().partition_columns
    except library.exceptions.DeltaError as error:
        line = next(iter(str(error).splitlines()), "")[:200].replace(folder, shown)
        raise SourceError(f"{shown}: the table's log cannot be read: {line}") from None
    for column in filters:
        if column not in partitioned:
            raise SourceError(f"{shown}: the table is not partitioned by {column}")
    # A column that was added later is null in older files.
    absent = dict.fromkeys(columns)
    found = []
    for action in added.select(
        [name for name in ("path", "partition") if name in added.column_names]
    ).to_pylist():
        values = action.get("partition") or {}
        if filters and any((_text(values.get(c)) or NULL) not in filters[c] for c in filters):
            continue
        name = unquote(action["path"])
        if "://" in name or name.startswith("/") or ".." in name.split("/"):
            raise SourceError(f"{shown}: the table's files are outside its folder; copy the table")
        fixed = absent | {column: _text(value) for column, value in values.items()}
        found.append(TableFile(f"{path.rstrip('/')}/{name}", fixed))
    if not found:
        which = f" that match the filter by {', '.join(filters)}" if filters else ""
        raise SourceError(f"{shown}: the table has no rows{which}")
    return tuple(sorted(found, key=lambda part: part.path))


def _with_entries(backend: Any, parts: tuple[TableFile, ...]) -> tuple[TableFile, ...]:
    """Add to files their entries in the listings of their folders.

    The log does not hold the tags of the files. One request lists a thousand of them, instead of
    one for each. A file that is not listed is asked for, and said to be gone, when it is read.
    """
    folders = Counter(part.path.rpartition("/")[0] for part in parts)
    several = [folder for folder, files in folders.items() if files > 1]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        listings = pool.map(lambda folder: backend.ls(folder, detail=True), several)
        entries = {str(entry["name"]): entry for listed in listings for entry in listed}
    return tuple(replace(part, info=entries.get(part.path)) for part in parts)


def _check_features(table: Any, shown: str) -> None:
    features = set(table.protocol().reader_features or ())
    if unknown := sorted(features - _HARMLESS):
        raise SourceError(f"{shown}: the table uses {', '.join(unknown)}, which is not supported")
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise SourceError(f"{shown}: the table uses column mapping, which is not supported")
    if "deletionVectors" in features and _has_deletion_vectors(table):
        raise SourceError(
            f"{shown}: the table has deletion vectors, which are not supported; "
            "rewrite its files (REORG TABLE … APPLY (PURGE))"
        )


def _has_deletion_vectors(table: Any) -> bool:
    try:
        return any(batch.num_rows for batch in table.deletion_vectors())
    except Exception:  # noqa: BLE001  (fails because the vectors are not copied: there are some)
        return True


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
