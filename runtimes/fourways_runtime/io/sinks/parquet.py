"""Predictions as Parquet files: a folder per run, and a pointer to the newest.

::

    URI/_latest                     JSON: the run to read, its path and files, its rows
    URI/run=NAME/part-00000.parquet the predictions of one run, one file per chunk
    URI/_writing/NAME/…             unpublished files

Readers use the folder that ``_latest`` names; it is replaced atomically when a run is complete. On
a file system, a run's folder also appears atomically. An object store cannot rename: there, files
appear one by one shortly before ``_latest`` points to them.

Names that begin with ``_`` are hidden from readers of Parquet folders.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from fourways_api import Contract
from fourways_runtime.errors import ConfigError
from fourways_runtime.scoring.columns import Reject

from ..folders import OutputFolder
from .chunk_files import ChunkFile, Layout
from .once import Once, key_name

LATEST = "_latest"
WRITING = "_writing"
_FILES = "_files"
_RUN_FOLDER = re.compile(r"run=[A-Za-z0-9._%~-]+")


class ParquetSink:
    """See :class:`.base.PredictionSink`."""

    def __init__(self, place: OutputFolder, contract: Contract, run: str, keep: int) -> None:
        self._place = place
        self._layout = Layout(contract)
        self._run = run
        self._keep = keep
        self._name = quote(run, safe="-._")
        self._aside = f"{WRITING}/{self._name}"
        self._folder = f"run={self._name}"
        self._once = Once(place, self._layout, key_name)

    def begin(self) -> None:
        """Check that the folder is writable."""
        probe = f"{self._aside}/_probe"
        self._place.put(probe, b"")
        self._latest()

    def probe(self) -> None:
        """Ask the folder something small."""
        self._place.size(f"{self._aside}/_probe")

    def chunk(self, number: int, attempt: int) -> ChunkFile:
        """Begin a file."""
        file = f"{self._aside}/{number:05}-{attempt}.parquet"
        return ChunkFile(self._place, self._layout, file, key_name(file))

    def repeated(self, receipts: Mapping[int, str]) -> list[Reject]:
        """Return the rows that publishing leaves out."""
        return self._once.repeated(receipts)

    def publish(self, receipts: Mapping[int, str]) -> None:
        """Move the files to the run's folder, and point readers to it."""
        mark = marked(receipts)
        latest = self._latest()
        if latest.get("run") != self._run or latest.get("receipts") != mark:
            files = self._moved(receipts, mark)
            runs = [self._folder, *(f for f in _runs(latest) if f != self._folder)]
            self._place.put(
                LATEST,
                orjson.dumps(
                    {
                        "run": self._run,
                        "path": self._folder,
                        "rows": sum(files.values()),
                        "files": list(files),
                        "published_at": datetime.now(UTC).isoformat(),
                        "receipts": mark,
                        "runs": runs[: self._keep],
                    }
                ),
            )
            for old in runs[self._keep :]:
                self._place.remove(old)
        self._place.remove(self._aside)

    def _moved(self, receipts: Mapping[int, str], mark: str) -> dict[str, int]:
        """Move the files to the run's folder; return their names and rows."""
        document = self._place.get(f"{self._folder}/{_FILES}")
        if document is not None and orjson.loads(document)["receipts"] == mark:
            return dict(orjson.loads(document)["files"])
        whole = f"{self._aside}/whole"
        document = self._place.get(f"{whole}/{_FILES}")
        if document is None or orjson.loads(document)["receipts"] != mark:
            # From here on, an attempt that is interrupted is resumed from this list.
            self._place.remove(whole)
            kept = self._once.files(receipts)
            listed = {f"part-{at:05}.parquet": r for at, r in enumerate(kept)}
            document = orjson.dumps(
                {
                    "receipts": mark,
                    "files": {name: r.rows for name, r in listed.items()},
                    "from": {name: r.file for name, r in listed.items()},
                }
            )
            self._place.put(f"{whole}/{_FILES}", document)
        plan: dict[str, Any] = orjson.loads(document)
        self._place.move([(of, f"{whole}/{name}") for name, of in plan["from"].items()])
        self._place.remove(self._folder)
        self._place.rename(whole, self._folder)
        return dict(plan["files"])

    def discard(self) -> None:
        """Delete the files that are not published."""
        self._place.remove(self._aside)

    def close(self) -> None:
        """Do nothing: no connection is held."""

    def _latest(self) -> dict[str, Any]:
        raw = self._place.get(LATEST)
        try:
            found = orjson.loads(raw) if raw else {}
        except orjson.JSONDecodeError:
            raise ConfigError(
                f"{self._place.shown}/{LATEST} is not JSON, and names the run to read: restore it, "
                "or delete it, and the runs that it no longer lists"
            ) from None
        return found if isinstance(found, dict) else {}


def _runs(latest: dict[str, Any]) -> list[str]:
    """Return the folders of published runs, newest first.

    Whoever may write the folder may write this list, and what is not kept of it is deleted.
    """
    listed = latest.get("runs")
    listed = listed if isinstance(listed, list) else []
    return [name for name in listed if isinstance(name, str) and _RUN_FOLDER.fullmatch(name)]


def marked(receipts: Mapping[int, str]) -> str:
    """Return a mark that identifies a set of receipts."""
    ordered = sorted(receipts.items())
    return hashlib.sha256(orjson.dumps(ordered)).hexdigest()[:32]
