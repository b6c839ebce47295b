"""Predictions as a Delta table: first the files, then one commit that replaces the previous ones.

Readers of Delta see the previous version or the new one, never a mixture. The commit carries the
run's receipts as its transaction id, so that publishing again changes nothing. The library
deltalake makes the commit on a copy of the log, which is written back if no other commit was made
meanwhile (otherwise it is made again): so the fetcher's policy and credentials apply to every
write.

The previous run stays in the table's history until the table is vacuumed, which is up to its owner.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow as pa

from fourways_api import Contract
from fourways_runtime.errors import ConfigError, SinkUnavailable
from fourways_runtime.scoring.columns import Reject

from ..folders import OutputFolder
from ..sources.delta import LOG, copy_log, deltalake
from .chunk_files import ChunkFile, Layout, Receipt
from .once import Once
from .parquet import WRITING, marked

TRIES = 10
CHECKPOINT_EVERY = 10
"""Commits between checkpoints, as is usual for Delta writers."""

_HARMLESS = frozenset(
    {
        "appendOnly",
        "invariants",
        "timestampNtz",
        "deletionVectors",
        "vacuumProtocolCheck",
        "v2Checkpoint",
        "changeDataFeed",
    }
)


class DeltaSink:
    """See :class:`.base.PredictionSink`."""

    def __init__(self, place: OutputFolder, contract: Contract, run: str) -> None:
        deltalake()
        self._place = place
        self._layout = Layout(contract, signed=True)
        self._run = run
        self._name = quote(run, safe="-._")
        self._aside = f"{WRITING}/{self._name}"
        self._once = Once(place, self._layout, self._keys)

    def begin(self) -> None:
        """Check that the table, if it exists, can hold the predictions."""
        self._place.put(f"{self._aside}/_probe", b"")
        with tempfile.TemporaryDirectory(prefix="fourways-delta-") as folder:
            self._table(folder)

    def probe(self) -> None:
        """Ask the folder something small."""
        self._place.size(f"{self._aside}/_probe")

    def chunk(self, number: int, attempt: int) -> ChunkFile:
        """Begin a file."""
        file = f"part-{number:05}-{self._name}-{attempt}.parquet"
        return ChunkFile(self._place, self._layout, file, self._keys(file))

    def _keys(self, file: str) -> str:
        return f"{self._aside}/{file.removesuffix('.parquet')}.keys"

    def repeated(self, receipts: Mapping[int, str]) -> list[Reject]:
        """Return the rows that publishing leaves out."""
        return self._once.repeated(receipts)

    def publish(self, receipts: Mapping[int, str]) -> None:
        """Commit the files, in place of all previous ones."""
        mark = f"fourways/{self._name}/{marked(receipts)}"
        files: list[Receipt] | None = None
        for _ in range(TRIES):
            with tempfile.TemporaryDirectory(prefix="fourways-delta-") as folder:
                table = self._table(folder)
                if table is not None and table.transaction_version(mark) is not None:
                    break
                if files is None:
                    files = self._once.files(receipts)
                if self._committed(folder, table, files, mark):
                    break
            time.sleep(0.1)
        else:
            raise SinkUnavailable(
                f"{self._place.shown}: other writers kept committing to the table"
            )
        self.discard()

    def _table(self, folder: str) -> Any:
        """Copy the table's log, and return the table; None if it does not exist yet."""
        shown = self._place.shown
        try:
            with self._place.translated():
                copy_log(self._place.backend, self._place.path, Path(folder), shown)
        except SinkUnavailable as error:
            if "there is no Delta table" in str(error):
                return None
            raise
        library = deltalake()
        try:
            table = library.DeltaTable(folder)
        except library.exceptions.DeltaError:
            raise ConfigError(f"{shown}: the table's log cannot be read") from None
        self._check(table)
        return table

    def _check(self, table: Any) -> None:
        shown = self._place.shown
        metadata = table.metadata()
        if metadata.partition_columns:
            listed = ", ".join(metadata.partition_columns)
            raise ConfigError(f"{shown}: the table is partitioned by {listed}; use another folder")
        if str(metadata.configuration.get("delta.appendOnly", "false")).lower() == "true":
            raise ConfigError(f"{shown}: the table is append-only; use another folder")
        features = set(table.protocol().writer_features or ())
        if unknown := sorted(features - _HARMLESS):
            raise ConfigError(f"{shown}: the table uses {', '.join(unknown)}: not supported")
        found = {f.name: f.type for f in pa.schema(table.schema().to_arrow())}
        ours = {f.name: f.type for f in _delta_schema(self._layout.schema)}
        for name in sorted(set(found) | set(ours)):
            if found.get(name) != ours.get(name):
                raise ConfigError(
                    f"{shown}: column {name} of the table is {found.get(name, 'missing')}, the "
                    f"predictions' is {ours.get(name, 'missing')}; use another folder"
                )

    def _committed(self, folder: str, table: Any, files: list[Receipt], mark: str) -> bool:
        """Commit; False if another writer committed first."""
        from deltalake.transaction import (
            AddAction,
            CommitProperties,
            PostCommitHookProperties,
            Transaction,
            create_table_with_add_actions,
        )

        now = int(time.time() * 1000)
        actions = [
            AddAction(
                path=quote(file.file),
                size=file.size,
                partition_values={},
                modification_time=now,
                data_change=True,
                stats=orjson.dumps({"numRecords": file.rows}).decode(),
            )
            for file in files
        ]
        how: dict[str, Any] = {
            "commit_properties": CommitProperties(
                custom_metadata={"fourways.run": self._run},
                app_transactions=[Transaction(mark, 0, now)],
            ),
            "post_commithook_properties": PostCommitHookProperties(
                create_checkpoint=False, cleanup_expired_logs=False
            ),
        }
        schema = deltalake().Schema.from_arrow(_delta_schema(self._layout.schema))
        if table is None:
            create_table_with_add_actions(folder, schema, actions, mode="error", **how)
            version = 0
        else:
            version = table.version() + 1
            table.create_write_transaction(actions, "overwrite", schema, [], **how)
        name = f"{version:020}.json"
        commit = (Path(folder) / LOG / name).read_bytes()
        if not self._place.put(f"{LOG}/{name}", commit, new=True):
            return False
        if version and version % CHECKPOINT_EVERY == 0:
            self._checkpoint(folder)
        return True

    def _checkpoint(self, folder: str) -> None:
        """Write a checkpoint, so that readers need not read every commit. It may fail."""
        try:
            deltalake().DeltaTable(folder).create_checkpoint()
            found = sorted((Path(folder) / LOG).glob("*.checkpoint*.parquet"))[-1:]
            for file in (*found, Path(folder) / LOG / "_last_checkpoint"):
                self._place.put(f"{LOG}/{file.name}", file.read_bytes())
        except Exception:  # noqa: BLE001, S110  (the table is just as valid without one)
            pass

    def discard(self) -> None:
        """Delete the files that are not published."""
        ours = re.compile(rf"part-\d+-{re.escape(self._name)}-\d+(-once)?\.parquet")
        used: set[str] = set()
        with tempfile.TemporaryDirectory(prefix="fourways-delta-") as folder:
            table = self._table(folder)
            if table is not None:
                added: Any = pa.table(table.get_add_actions())
                used |= set(added.column("path").to_pylist())
        for name in self._place.names(""):
            if ours.fullmatch(name) and quote(name) not in used:
                self._place.delete(name)
        self._place.remove(self._aside)

    def close(self) -> None:
        """Do nothing: no connection is held."""


def _delta_schema(schema: pa.Schema) -> pa.Schema:
    """Return the Delta types of columns, all of which may be null there."""
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def _plain(kind: Any) -> Any:
    if pa.types.is_list(kind):
        return pa.list_(pa.field("element", _plain(kind.value_type)))
    return kind
