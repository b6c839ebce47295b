"""Bundles between the build, which parses the model, and the signing, which has the key.

The build writes them into a folder that only the two share, and ends before the signing begins. The
signing trusts nothing in the folder but the content of a file whose digest is its name: documents
are parsed strictly, links are not followed, and the model stays bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fourways_api import ApiModel
from fourways_api.runtime_config import UNSIGNED, EdgeConfig
from fourways_api.status import BundleStatus
from fourways_api.values import Digest
from fourways_runtime import bundle_layout as layout
from fourways_runtime.beneath import open_model_file
from fourways_runtime.bundle_layout import MalformedBundle
from fourways_runtime.errors import ModelNotLoadable, WorkloadError

_LIST_FILE = "unsigned.json"
_PIECE = 2**20


class UnsignedBundle(ApiModel):
    """A bundle of one target, without its signature."""

    status: BundleStatus
    """What the build measured; its digest is that of the model manifest."""

    report: Digest
    """Digest of the report's manifest."""

    blobs: tuple[Digest, ...]
    """All files of the bundle."""


class UnsignedBundles(ApiModel):
    """What a build hands over."""

    source: Digest
    """Digest of the model as fetched."""

    bundles: tuple[UnsignedBundle, ...]


def folder_of(config: EdgeConfig) -> Path:
    """Return the folder of a deployment's unsigned bundles."""
    name = f"{config.namespace}-{config.name}"
    return Path(config.paths.cache_dir) / UNSIGNED / name


def emptied(config: EdgeConfig) -> Path:
    """Create the folder anew, without what an earlier build left there."""
    folder = folder_of(config)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def hand_over(folder: Path, unsigned: UnsignedBundles) -> None:
    """Write the list of bundles, whose files are in the folder."""
    (folder / _LIST_FILE).write_bytes(layout.encode(unsigned.to_json()))


def taken_over(folder: Path) -> UnsignedBundles:
    """Read the list of bundles. Raises ModelNotLoadable; the error quotes nothing that was read."""
    raw = _content(folder, _LIST_FILE, layout.MAX_DOCUMENT_BYTES)
    try:
        return UnsignedBundles.model_validate_json(raw)
    except ValueError:
        raise refused("its list of bundles is malformed") from None


def file_name(digest: str) -> str:
    """Return the name of a file in the folder."""
    return digest.replace(":", "-")


def document(folder: Path, digest: str) -> bytes:
    """Return a document of at most a mebibyte. Raises ModelNotLoadable."""
    raw = _content(folder, file_name(digest), layout.MAX_DOCUMENT_BYTES)
    if layout.digest_of(raw) != digest:
        raise refused("a document has another digest than its name")
    return raw


def checked(folder: Path, bundle: UnsignedBundle) -> dict[str, Path]:
    """Return a bundle's files by digest. Raises ModelNotLoadable if one has another content."""
    found = {}
    for digest in bundle.blobs:
        if _digest(folder, file_name(digest)) != digest:
            raise refused("a file has another digest than its name")
        found[digest] = folder / file_name(digest)
    return found


def manifest_of(
    folder: Path, bundle: UnsignedBundle, files: Mapping[str, Path], title: str, version: str
) -> bytes:
    """Return a bundle's model manifest if it is for this deployment. Raises ModelNotLoadable.

    ``files`` are the bundle's, as :func:`checked` returns them.
    """
    raw = document(folder, bundle.status.digest)
    try:
        listed = layout.read_model_manifest(raw)
    except MalformedBundle as error:
        raise refused(str(error)) from None
    notes = layout.read_annotations(raw)
    annotated = [
        notes.get(name) for name in (layout.TITLE_NOTE, layout.VERSION_NOTE, layout.TARGET_NOTE)
    ]
    if annotated != [title, version, bundle.status.target]:
        raise refused("a manifest is of another deployment, version or target")
    for name, file in listed.items():
        path = files.get(file.digest)
        if path is None or path.stat().st_size != file.size:
            raise refused(f"the file {name} is missing or has another size")
    return raw


def targets_of(bundles: Sequence[UnsignedBundle]) -> list[str]:
    """Return the targets' names, in order."""
    return sorted(bundle.status.target for bundle in bundles)


def refused(why: str) -> ModelNotLoadable:
    """Return the error for a folder that no build of ours wrote."""
    return ModelNotLoadable(f"nothing was signed: what the build wrote is not a bundle: {why}")


def _content(folder: Path, name: str, most: int) -> bytes:
    with os.fdopen(_opened(folder, name), "rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise refused(f"{name[:80]} is too large")
    return raw


def _digest(folder: Path, name: str) -> str:
    digest = hashlib.sha256()
    with os.fdopen(_opened(folder, name), "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _opened(folder: Path, name: str) -> int:
    try:
        return open_model_file(folder, (name,), "the build's folder")
    except WorkloadError as error:
        raise refused(str(error)) from None
