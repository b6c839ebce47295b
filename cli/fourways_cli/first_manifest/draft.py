"""Makes a first manifest and the files beside it, and writes them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from fourways_api import Mode, read_documents
from fourways_api.display import displayed
from fourways_runtime.errors import WorkloadError

from ..manifests import read_manifest
from .errors import NoManifest
from .inputs import DraftInputs, draft_inputs
from .manifest_text import Written, manifest_text
from .model_source import ModelSource, find_model
from .names import looks_like_key
from .outputs import draft_outputs
from .probe import ask, golden_vectors, request_of, training_profile
from .sample import Sample, read_sample, table_batches

_LARGE_MIB = 1024
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Draft:
    """What will be written: the manifest, and files beside it."""

    manifest: Path
    text: str
    name: str
    inputs: int
    outputs: int
    beside: dict[Path, Callable[[Path], None]]
    """Further files, each with the function that writes it."""

    notes: tuple[str, ...]
    """What a person should know besides the comments."""

    request: dict[str, Any]
    """An inference request (V2) with one record."""

    watched: tuple[Path, ...]
    """The files that it was made from."""

    def existing(self) -> list[Path]:
        """Return the files that would be overwritten."""
        return [path for path in (*self.beside, self.manifest) if path.exists()]

    def write(self) -> None:
        """Write all files, the manifest last; each is complete or absent. Raises OSError."""
        self.manifest.parent.mkdir(parents=True, exist_ok=True)
        for path, writer in self.beside.items():
            _replace(path, writer)
        _replace(self.manifest, lambda path: _write_text(path, self.text))


def make_draft(
    model: Path,
    *,
    manifest: Path | None = None,
    sample: Path | None = None,
    mode: Mode = "realtime",
    name: str | None = None,
) -> Draft:
    """Read a model and a sample, and make a manifest that runs.

    ``manifest`` is the file to write, by default NAME.yaml in the working directory.

    Raises:
        NoManifest: the model cannot be served, or the sample does not fit it.

    """
    source = find_model(model)
    name = name or source.name
    manifest = manifest or Path(f"{name}.yaml")
    if mode == "batch" and sample is None:
        raise NoManifest("mode batch scores a table; give it with --sample TABLE")
    if mode == "edge" and sample is None and source.example is None:
        raise NoManifest("mode edge needs golden vectors; give --sample TABLE")
    table = read_sample(sample) if sample is not None else source.example
    try:
        return _drafted(source, table, manifest, mode, name)
    except WorkloadError as error:
        raise NoManifest(str(error)) from None


def _drafted(
    source: ModelSource, sample: Sample | None, manifest: Path, mode: Mode, name: str
) -> Draft:
    described = source.description
    inputs = draft_inputs(source, sample)
    answers = ask(inputs, described.model, sample, stored=mode in ("batch", "streaming"))
    unreadable = {t.name: t.unreadable for t in described.model.outputs if t.unreadable}
    outputs, left_out = draft_outputs(answers, unreadable, described.hints, inputs.key_name)
    contract = inputs.contract([each.spec() for each in outputs])
    golden = golden_vectors(contract, described.model, sample, inputs)
    beside: dict[Path, Callable[[Path], None]] = {}
    notes: list[str] = []
    golden_said = None
    if golden:
        path = manifest.with_name(f"{name}.golden.jsonl")
        beside[path] = lambda at: _write_bytes(at, golden)
        golden_said = _file_said(path, manifest, golden)
    profile_said = None
    profile = training_profile(contract, described.model, sample, inputs)
    if profile:
        path = manifest.with_name(f"{name}.profile.json")
        beside[path] = lambda at: _write_bytes(at, profile)
        profile_said = _file_said(path, manifest, profile)
    table = _batch_table(sample, inputs, manifest, name) if mode == "batch" and sample else None
    if table is not None and table.writer is not None:
        beside[table.path] = table.writer
        notes.append(table.why)
    text = manifest_text(
        Written(
            name=name,
            mode=mode,
            model=_model(source, manifest),
            inputs=inputs,
            outputs=outputs,
            source=table.source(manifest) if table else None,
            golden=golden_said,
            tokenizer=_tokenizer(inputs, manifest),
            profile=profile_said,
            notes=described.hints.notes,
            left_out=left_out,
            origin=_origin(source, sample),
        )
    )
    _check(manifest, text)
    return Draft(
        manifest,
        text,
        name,
        len(inputs.fields),
        len(outputs),
        beside,
        notes=(*notes, *inputs.decisions),
        request=request_of(contract, answers),
        watched=(
            described.path,
            *([inputs.tokenizer.path] if inputs.tokenizer else []),
            *([sample.path] if sample and sample.path else []),
        ),
    )


def _origin(source: ModelSource, sample: Sample | None) -> str:
    text = f"Written by fourways init from {source.description.path.name}"
    if sample is None:
        return f"{text}, without a sample."
    what = sample.path.name if sample.path else "the input example beside it"
    return f"{text} and {what} ({len(sample.table):,} rows)."


def _file_said(path: Path, manifest: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"uri": _uri(path, manifest), "digest": f"sha256:{digest}"}


def _model(source: ModelSource, manifest: Path) -> dict[str, Any]:
    described = source.description
    said: dict[str, Any] = {
        "uri": _uri(described.path, manifest),
        "digest": f"sha256:{digest_of(described.path)}",
        "format": described.format,
        "version": "1",
    }
    if described.hints.external:
        said["allowExternalData"] = True
    size = described.path.stat().st_size >> 20
    if size > _LARGE_MIB:
        said["maxSizeMiB"] = 2 * size
    return said


def _tokenizer(inputs: DraftInputs, manifest: Path) -> dict[str, Any] | None:
    found = inputs.tokenizer
    return None if found is None else found.of_contract(_uri(found.path, manifest))


def _check(manifest: Path, text: str) -> None:
    """Validate the text as `fourways validate` does. Raises NoManifest.

    A training profile that is there is of an earlier draft: this one's is not written yet.
    """
    for document in read_documents(text):
        findings = read_manifest(manifest, document, with_profile=False).findings
        if findings:
            raise NoManifest("; ".join(str(finding.problem) for finding in findings[:5]))


# ---------------------------------------------------------------- the table of a batch deployment


@dataclass(frozen=True, slots=True)
class _BatchTable:
    path: Path
    format: str
    writer: Callable[[Path], None] | None = None
    """Writes a copy with the contract's names; None: the sample itself can be scored."""

    why: str = ""

    def source(self, manifest: Path) -> dict[str, Any]:
        return {"uri": _uri(self.path, manifest), "format": self.format}


def _batch_table(
    sample: Sample, inputs: DraftInputs, manifest: Path, name: str
) -> _BatchTable | None:
    if sample.path is None or sample.format is None:
        return None
    path, kind = sample.path, sample.format
    columns = {each.column: each.name for each in inputs.fields if each.column}
    renamed = {old: new for old, new in columns.items() if old != new}
    if inputs.key_column is not None:
        columns = {inputs.key_column: inputs.key_name} | columns
        if inputs.key_column != inputs.key_name:
            renamed[inputs.key_column] = inputs.key_name
    elif not renamed and inputs.key_name in sample.columns:
        return _BatchTable(path, kind)
    if inputs.key_column is not None and not renamed:
        return _BatchTable(path, kind)
    copied = manifest.with_name(f"{name}.table.{'parquet' if kind == 'Parquet' else 'csv'}")
    key = inputs.key_name if inputs.key_column is None else None
    parts = [f"{old} is {new} there" for old, new in list(renamed.items())[:5]]
    parts += [f"{key} is the number of the row, because {_no_key(sample)}"] if key else []
    why = (
        f"{copied.name} is a copy of the sample with the contract's names: {', '.join(parts)}."
        " Replace it by a table of yours with these names."
    )
    return _BatchTable(copied, kind, lambda at: _copy(path, kind, columns, key, at), why)


def _no_key(sample: Sample) -> str:
    """Return why no column of a sample is its key."""
    for column in filter(looks_like_key, sample.columns):
        shown = displayed(column, 100)
        if sample.kind(column) not in ("int64", "string"):
            return f"{shown} is neither text nor whole numbers"
        if not sample.is_unique(column):
            return f"{shown} repeats values, or lacks some"
    return "no column has a text or a whole number of its own in every row"


def _copy(source: Path, kind: Any, columns: dict[str, str], key: str | None, into: Path) -> None:
    """Copy the columns of a table under other names, with the row's number as the key if asked."""
    writer: Any = None
    row = 0
    try:
        for batch in table_batches(source, kind):
            arrays = [batch.column(batch.schema.get_field_index(old)) for old in columns]
            names = list(columns.values())
            if key is not None:
                arrays.insert(0, pa.array(np.arange(row, row + batch.num_rows)))
                names.insert(0, key)
            row += batch.num_rows
            made = pa.RecordBatch.from_arrays(arrays, names)
            if writer is None:
                new = pq.ParquetWriter if kind == "Parquet" else pacsv.CSVWriter
                writer = new(os.fspath(into), made.schema)
            writer.write_batch(made)
    finally:
        if writer is not None:
            writer.close()


# ---------------------------------------------------------------- files


def digest_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uri(path: Path, manifest: Path) -> str:
    """Return a path relative to the manifest's folder, as a manifest may write it."""
    written = os.path.relpath(path.resolve(), manifest.resolve().parent)
    # A name with a colon would be read as a URI with a scheme.
    return written if ":" not in written.split("/", 1)[0] else f"./{written}"


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _write_text(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def _replace(path: Path, writer: Callable[[Path], None]) -> None:
    """Write a file completely, then put it in place."""
    handle, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.resolve().parent)
    os.close(handle)
    try:
        writer(Path(made))
        mask = os.umask(0)
        os.umask(mask)
        Path(made).chmod(0o666 & ~mask)
        os.replace(made, path)
    finally:
        Path(made).unlink(missing_ok=True)
