"""One update: from what the gateway publishes to a new slot, or nothing changes.

Owns the order, which is the safety of it: small documents, then their signature, then whether this
release is for us and newer, then room on the disk, then the blobs into the slot nobody uses, each
held to its digest, then the model's answers in a process of its own; and only then the pointer.
Ended at any moment, the device has a whole old model or a whole new one; the next update continues
with what was fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor, Malformed, Release

from . import check, files
from .errors import Failed, NoSpace, Refused
from .remote import Remote
from .slot import file_of, is_whole, signed_folder
from .state import Settings, State, Store

logger = logging.getLogger("fourways.agent")

SPARE_BYTES = 16 * 2**20
"""Room left on the disk for everything else."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an update came to."""

    changed: bool
    digest: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class _Offer:
    """What is published, its signature verified."""

    digest: str
    raw: bytes
    release_raw: bytes
    signature: bytes
    release: Release
    files: Mapping[str, Descriptor]


def update(store: Store, settings: Settings) -> Outcome:
    """Bring this device to what is published.

    Raises:
        Refused: what is published is not genuine, not for this device, older, or does not work.
        Unavailable: the gateway, the disk or another update stands in the way.

    """
    store.prepare()
    with files.disk(), files.locked(store.folder / "update.lock", wait=False):
        remote = Remote(settings.gateway, settings.deployment, settings.target)
        try:
            published = layout.read_index(
                remote.document(layout.INDEX_FILE, layout.MAX_DOCUMENT_BYTES)
            )
            state = store.read()
            if published.model.digest == state.digest:
                return Outcome(False, published.model.digest)
            if published.model.digest in state.bad:
                raise Failed(f"{published.model.digest} does not work here; waiting for another")
            offer = _verified(store, settings, remote, published)
        except Malformed as error:
            raise Refused(str(error)) from None
        _check_newer(offer, store.read())
        state = _settled(store)
        slot = store.slot(state.inactive())
        _fetch(remote, offer, store, slot)
        return _switch(store, offer, slot)


def _verified(
    store: Store, settings: Settings, remote: Remote, published: layout.Published
) -> _Offer:
    """Fetch the small documents, and vouch for them. Raises Malformed, Refused, Unavailable."""
    digest = published.model.digest
    raw = remote.blob(published.model)
    where, release_at = layout.read_signature_manifest(remote.blob(published.signature), digest)
    signature, release_raw = remote.blob(where), remote.blob(release_at)
    incoming = store.folder / "incoming"
    files.delete(incoming)
    _write_documents(incoming, raw, release_raw, signature)
    check.verify_signature(incoming, Path(settings.key))
    # Only from here on is anything believed.
    release = layout.read_release(release_raw)
    if release.manifest != digest:
        raise Refused("the release is about another manifest")
    if (release.deployment, release.target) != (settings.deployment, settings.target):
        raise Refused(f"the bundle is for {release.target} of {release.deployment}, not for us")
    found = layout.read_model_manifest(raw)
    return _Offer(digest, raw, release_raw, signature, release, found)


def _check_newer(offer: _Offer, state: State) -> None:
    sequence = offer.release.sequence
    if sequence < state.sequence or (sequence == state.sequence and offer.digest != state.accepted):
        raise Refused(
            f"release {sequence} is not newer than {state.sequence}, which this device has had;"
            " to go back to an old model, publish it again"
        )


def _settled(store: Store) -> State:
    """Return the pointer once its slot has answered: until then the other one is the way back."""
    state = store.read()
    if state.slot is not None and not state.confirmed:
        check.boot(store.folder)
        state = store.read()
        if state.slot is not None and not state.confirmed:
            raise Refused("the model before this one has not answered yet")
    return state


def _fetch(remote: Remote, offer: _Offer, store: Store, slot: Path) -> None:
    """Bring the bundle's files into the slot; those that are there already are kept."""
    # From here on the slot is no way back any more.
    store.change(lambda state: replace(state, previous_slot=None, previous_digest=None))
    files.make_folder(slot / "files")
    wanted = {name: it for name, it in offer.files.items() if not is_whole(slot, name, it)}
    kept = {f"{name}.part" for name in wanted} | (offer.files.keys() - wanted.keys())
    for file in (slot / "files").iterdir():
        if file.name not in kept:
            files.delete(file)
    needed = sum(it.size for it in wanted.values()) + SPARE_BYTES
    free = files.free_bytes(slot)
    if free < needed:
        raise NoSpace(f"the bundle needs {needed >> 20} MiB of disk, {free >> 20} MiB are free")
    try:
        for name, descriptor in wanted.items():
            remote.download(descriptor, file_of(slot, name))
        _write_documents(slot, offer.raw, offer.release_raw, offer.signature)
    except NoSpace:
        files.delete(slot)  # others of this device need the room more than a half bundle
        raise


def _write_documents(folder: Path, manifest: bytes, release: bytes, signature: bytes) -> None:
    files.make_folder(signed_folder(folder))
    files.write(signed_folder(folder) / layout.MANIFEST_FILE, manifest)
    files.write(signed_folder(folder) / layout.RELEASE_FILE, release)
    files.write(folder / layout.SIGNATURE_FILE, signature)


def _switch(store: Store, offer: _Offer, slot: Path) -> Outcome:
    try:
        figures = check.test_model(slot, offer.digest)
    except Failed as error:
        store.change(lambda state: state.given_up(offer.digest))
        files.delete(slot)
        raise Failed(f"self-test: {error}") from None
    logger.info("self-test passed", extra=figures)

    def switched(state: State) -> State:
        return replace(
            state,
            slot=slot.name,
            digest=offer.digest,
            confirmed=False,
            boots=0,
            previous_slot=state.slot,
            previous_digest=state.digest,
            sequence=offer.release.sequence,
            accepted=offer.digest,
        )

    store.change(switched)
    version = layout.read_annotations(offer.raw).get(layout.VERSION_NOTE, "")
    logger.info("switched", extra={"digest": offer.digest, "version": version})
    return Outcome(True, offer.digest, version)
