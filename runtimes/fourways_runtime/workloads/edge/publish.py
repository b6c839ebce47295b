"""Publish one bundle: the order of writes, and what is kept of the previous release.

Blobs are written first and the index last, so a device that reads the index finds everything it
names. The previous release's index stays as ``previous.json``, together with its blobs, for devices
that are still fetching it; anything older is deleted. Whenever publishing is interrupted, one
complete release stays published, and repeating the same publication completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fourways_api.runtime_config import EdgeConfig
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor, MalformedBundle, Release
from fourways_runtime.io.folders import PUBLISH_ERRORS, OutputFolder, open_folder

from ..place_watch import PUBLISH, PlaceWatch

PREVIOUS_FILE = "previous.json"
_BLOBS = "blobs/sha256"


def place_of(config: EdgeConfig, target: str) -> OutputFolder:
    """Return the folder that a target's bundles are published in."""
    edge, credentials = config.edge, config.edge.credentials
    return open_folder(
        f"{edge.publish.rstrip('/')}/{config.name}/{target}",
        secret=Path(config.paths.secrets_root) / credentials.secret_name if credentials else None,
        policy=config.fetch,
        paths=config.paths,
        errors=PUBLISH_ERRORS,
        public=True,
    )


@contextmanager
def watched_place(
    config: EdgeConfig, target: str, places: PlaceWatch, what: str
) -> Iterator[OutputFolder]:
    """Use the folder of a target's bundles; ``what`` is done there, and named if it hangs."""
    folder = place_of(config, target)

    def ask() -> None:
        folder.size(layout.INDEX_FILE)

    places.ask_by(PUBLISH, ask)
    with places.step(PUBLISH, f"{what} for target {target}"):
        yield folder


@dataclass(slots=True)
class Staged:
    """A bundle's blobs on this disk, by digest, before they are published."""

    folder: Path
    blobs: dict[str, Path] = field(default_factory=dict)

    def add(self, media_type: str, raw: bytes) -> Descriptor:
        """Stage bytes."""
        found = Descriptor.of(media_type, raw)
        file = self.folder / found.digest.replace(":", "-")
        file.write_bytes(raw)
        self.blobs[found.digest] = file
        return found

    def document(self, name: str, raw: bytes) -> Path:
        """Write a file that is not a blob; return its path."""
        file = self.folder / name
        file.write_bytes(raw)
        return file


def next_release(
    folder: OutputFolder,
    deployment: str,
    target: str,
    manifest: str,
    clock: Callable[[], float],
    *,
    namespace: str = "",
    cluster: str = "",
) -> Release:
    """Return the release of a manifest: the published one if it is unchanged, otherwise a new one.

    A release that names another namespace or cluster than the published one is a new one. The
    sequence number is the time in seconds since 1970, and greater than the last one: even if the
    folder was lost, no device mistakes the next release for an older one. Raises PublishFailed.
    """
    last = published_release(folder)
    wanted = Release(deployment, target, manifest, int(clock()), namespace, cluster)
    # Otherwise the folder previously belonged to another series.
    if last is not None and _is_same_series(last, wanted):
        if replace(wanted, sequence=last.sequence) == last:
            return last
        return replace(wanted, sequence=max(wanted.sequence, last.sequence + 1))
    return wanted


def _is_same_series(last: Release, new: Release) -> bool:
    """Tell whether a release precedes another; older builds recorded no namespace and cluster."""
    return (
        (last.deployment, last.target) == (new.deployment, new.target)
        and last.namespace in ("", new.namespace)
        and last.cluster in ("", new.cluster)
    )


def published_variant(folder: OutputFolder, source: str) -> str | None:
    """Return the currently published variant, or None if it was built from another source model."""
    raw = folder.get(layout.INDEX_FILE, layout.MAX_DOCUMENT_BYTES)
    try:
        if raw is None:
            return None
        notes = layout.read_annotations(_blob(folder, layout.read_index(raw).model.digest))
    except MalformedBundle:
        return None
    return notes.get(layout.VARIANT_NOTE) if notes.get(layout.SOURCE_NOTE) == source else None


def published_release(folder: OutputFolder) -> Release | None:
    """Return the currently published release, or None if there is none or it is unreadable."""
    raw = folder.get(layout.INDEX_FILE, layout.MAX_DOCUMENT_BYTES)
    try:
        if raw is None:
            return None
        index = layout.read_index(raw)
        signature = _blob(folder, index.signature.digest)
        _, release = layout.read_signature_manifest(signature, index.model.digest)
        return layout.read_release(_blob(folder, release.digest))
    except MalformedBundle:
        return None


def publish(folder: OutputFolder, staged: Staged, index: bytes) -> None:
    """Publish a bundle. Raises PublishFailed."""
    for digest, file in staged.blobs.items():
        name = layout.blob_name(digest)
        # Names are content hashes, so an existing blob with this name and size is this blob.
        if folder.size(name) != file.stat().st_size:
            folder.put_file(name, file)
    folder.put_file(layout.LAYOUT_FILE, staged.document("layout", layout.encode(layout.LAYOUT)))
    before = folder.get(layout.INDEX_FILE, layout.MAX_DOCUMENT_BYTES)
    if before is not None and _model(before) not in (None, _model(index)):
        folder.put_file(PREVIOUS_FILE, staged.document("previous", before))
    folder.put_file(layout.INDEX_FILE, staged.document("index", index))
    _prune(folder, index)


def _prune(folder: OutputFolder, index: bytes) -> None:
    kept = _reachable(folder, index)
    previous = folder.get(PREVIOUS_FILE, layout.MAX_DOCUMENT_BYTES)
    if previous is not None:
        kept |= _reachable(folder, previous)
    for name in folder.names(_BLOBS):
        if f"sha256:{name}" not in kept:
            folder.delete(f"{_BLOBS}/{name}")


def _reachable(folder: OutputFolder, index: bytes) -> set[str]:
    """Return the digests reachable from an index."""
    found: set[str] = set()
    for manifest in _digests(layout.loads(index), "manifests"):
        found.add(manifest)
        raw = folder.get(layout.blob_name(manifest), layout.MAX_DOCUMENT_BYTES)
        if raw is not None:
            document = layout.loads(raw)
            found |= {*_digests(document, "layers"), *_digests({"": [document.get("config")]}, "")}
    return found


def _digests(document: Mapping[str, object], field: str) -> Iterable[str]:
    entries = document.get(field)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("digest"), str):
            yield entry["digest"]


def _model(index: bytes) -> str | None:
    try:
        return layout.read_index(index).model.digest
    except MalformedBundle:
        return None


def _blob(folder: OutputFolder, digest: str) -> bytes:
    raw = folder.get(layout.blob_name(digest), layout.MAX_DOCUMENT_BYTES)
    if raw is None or layout.digest_of(raw) != digest:
        raise MalformedBundle("a blob is missing")
    return raw
