"""One slot: the files of one bundle, and the proof that they are genuine and complete.

The documents (manifest, release, signature) are in the slot twice: in one file ``documents.json``,
which is replaced atomically and therefore always belongs to one release, and in the folder
``signed`` with ``signature.json`` beside it, which ``model_signing verify`` reads. Either is
enough. The signature covers the manifest, and the manifest names every file by its sha256; all of
it is verified each time before a library opens any of the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor, MalformedBundle, Release

from . import files
from .errors import BundleRefused
from .remote import file_digest
from .trust import Documents, TrustedKeys

DOCUMENTS_FILE = "documents.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on this disk with every file verified."""

    folder: Path
    digest: str
    release: Release
    version: str
    variant: str
    agreement: float
    """Share of golden vectors on which this device must agree with the original model."""

    files: dict[str, Path]


def file_of(slot: Path, name: str) -> Path:
    """Return the path of a bundle's file; ``name`` is one of those that the format defines."""
    return slot / "files" / name


def is_whole(slot: Path, name: str, wanted: Descriptor) -> bool:
    """Return whether a file exists and matches the manifest."""
    return file_digest(file_of(slot, name)) == wanted.digest


def write_documents(slot: Path, documents: Documents) -> None:
    """Write a release's documents into a slot. Raises NoSpace.

    If the process ends in between, a reader finds one release's documents or the other's, never a
    mixture.
    """
    parent = files.StateFolder(slot.parent.parent)
    parent.make(f"{slot.parent.name}/{slot.name}/signed")
    files.write(slot / DOCUMENTS_FILE, documents.encode())
    files.write(slot / "signed" / layout.MANIFEST_FILE, documents.manifest)
    files.write(slot / "signed" / layout.RELEASE_FILE, documents.release)
    files.write(slot / layout.SIGNATURE_FILE, documents.signature)


def holds_documents(slot: Path, documents: Documents) -> bool:
    """Return whether both copies in a slot equal these documents."""
    return list(_documents(slot)) == [documents, documents]


def verified_documents(slot: Path, keys: TrustedKeys) -> list[tuple[Documents, Release]]:
    """Return the documents in a slot that are signed by a trusted key, at most two.

    Raises BundleRefused if there are none.
    """
    found, fault = [], BundleRefused("the slot has no documents")
    for documents in _documents(slot):
        try:
            found.append((documents, keys.verify(documents)))
        except BundleRefused as error:
            fault = error
    if not found:
        raise fault
    return found


def _documents(slot: Path) -> Iterator[Documents]:
    with suppress(OSError, MalformedBundle):
        yield Documents.decode((slot / DOCUMENTS_FILE).read_bytes())
    with suppress(OSError):
        yield Documents(
            (slot / "signed" / layout.MANIFEST_FILE).read_bytes(),
            (slot / "signed" / layout.RELEASE_FILE).read_bytes(),
            (slot / layout.SIGNATURE_FILE).read_bytes(),
        )


def open_bundle(slot: Path, keys: TrustedKeys, digest: str | None = None) -> Bundle:
    """Verify the signature and every file of a slot. Raises BundleRefused.

    ``digest`` is the bundle that is expected there; None accepts any signed bundle.
    """
    fault = None
    for documents, release in verified_documents(slot, keys):
        try:
            return _opened(slot, documents, release, digest)
        except BundleRefused as error:
            fault = fault or error
    assert fault is not None  # noqa: S101  (there is at least one)
    raise fault


def _opened(slot: Path, documents: Documents, release: Release, digest: str | None) -> Bundle:
    if digest is not None and documents.digest != digest:
        raise BundleRefused("the slot holds another bundle")
    try:
        found = layout.read_model_manifest(documents.manifest)
    except MalformedBundle as error:
        raise BundleRefused(str(error)) from None
    for name, wanted in found.items():
        if not is_whole(slot, name, wanted):
            raise BundleRefused(f"the slot's {name} is damaged")
    notes = layout.read_annotations(documents.manifest)
    try:
        agreement = float(notes.get(layout.AGREEMENT_NOTE, "1"))
    except ValueError:
        agreement = 1.0
    return Bundle(
        slot,
        documents.digest,
        release,
        notes.get(layout.VERSION_NOTE, ""),
        notes.get(layout.VARIANT_NOTE, ""),
        agreement,
        {name: file_of(slot, name) for name in found},
    )
