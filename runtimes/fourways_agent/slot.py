"""One slot: the files of one bundle, and the proof that they are what its manifest names.

The manifest is known by the digest in the pointer, each file by its digest in the manifest; they
are checked every time before a library opens any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor, Malformed

from .errors import Refused
from .remote import file_digest


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on this disk, every file of it verified."""

    folder: Path
    digest: str
    version: str
    variant: str
    agreement: float
    """Share of golden vectors this device must answer as the original does."""

    files: dict[str, Path]


def signed_folder(slot: Path) -> Path:
    """Return the folder of the two documents that are signed."""
    return slot / "signed"


def file_of(slot: Path, name: str) -> Path:
    """Return where a bundle's file is; ``name`` is one of the format's own."""
    return slot / "files" / name


def is_whole(slot: Path, name: str, wanted: Descriptor) -> bool:
    """Tell whether a file is there and is what the manifest names."""
    return file_digest(file_of(slot, name)) == wanted.digest


def open_bundle(slot: Path, digest: str) -> Bundle:
    """Verify a slot's files against the digest of its manifest. Raises Refused."""
    try:
        raw = (signed_folder(slot) / layout.MANIFEST_FILE).read_bytes()
    except OSError:
        raise Refused("the slot has no manifest") from None
    if layout.digest_of(raw) != digest:
        raise Refused("the slot's manifest is another")
    try:
        files = layout.read_model_manifest(raw)
    except Malformed as error:
        raise Refused(str(error)) from None
    for name, wanted in files.items():
        if not is_whole(slot, name, wanted):
            raise Refused(f"the slot's {name} is damaged")
    notes = layout.read_annotations(raw)
    try:
        agreement = float(notes.get(layout.AGREEMENT_NOTE, "1"))
    except ValueError:
        agreement = 1.0
    return Bundle(
        slot,
        digest,
        notes.get(layout.VERSION_NOTE, ""),
        notes.get(layout.VARIANT_NOTE, ""),
        agreement,
        {name: file_of(slot, name) for name in files},
    )
