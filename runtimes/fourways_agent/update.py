"""One update: from what the gateway publishes to a new slot, all or nothing.

Owns the order of the steps, which makes an update safe: fetch the small documents; verify their
signature; check that the release is for this device and not an older one (its sequence is
remembered even if nothing else needs to be done); check the free disk space; fetch the files into
the unused slot, each verified by its digest; test the model in a separate process; and only then
change the pointer. Whenever the process ends, the device has a complete old model or a complete new
one, and the next update continues with the files fetched so far.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fourways_api.display import displayed
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor, MalformedBundle, Release

from . import check, files
from .errors import AgentError, BundleRefused, ModelUnusable, NoSpace, TemporaryFailure
from .recovery import newest_release, repoint, restored, whole_slots
from .remote import Remote, part_of
from .slot import file_of, holds_documents, is_whole, verified_documents, write_documents
from .start import MAX_CRASHES
from .state import DeviceSettings, State, Store
from .trust import Documents, TrustedKeys

logger = logging.getLogger("fourways.agent")

SPARE_BYTES = 16 * 2**20
"""Disk space to leave free for everything else."""


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The outcome of an update."""

    changed: bool
    digest: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class _Offer:
    """The published bundle, with its signature verified."""

    documents: Documents
    release: Release
    signature: str
    """Digest of the signature manifest."""

    files: Mapping[str, Descriptor]

    @property
    def digest(self) -> str:
        return self.documents.digest


def update(store: Store, settings: DeviceSettings) -> UpdateResult:
    """Update this device to the published bundle.

    Raises:
        BundleRefused: the published bundle is not genuine, not for this device, older, or unusable.
        TemporaryFailure: the gateway, the disk or another update is not ready.

    """
    store.prepare()
    with files.disk(), files.locked(store.folder / "update.lock", wait=False):
        keys, pem = settings.read_keys()
        settings = replace(settings, key_pem=pem)
        store.remember(settings)
        remote = Remote.of(settings)
        state = _remembered(store, keys)
        try:
            published = layout.read_index(
                remote.document(layout.INDEX_FILE, layout.MAX_DOCUMENT_BYTES)
            )
            known = published.signature.digest == state.verified and _is_for(settings, state)
            if known and _is_done(state, published):
                _repair(store, state, keys)
                return UpdateResult(False, published.model.digest)
            offer = _verified(settings, keys, remote, published, state)
        except MalformedBundle as error:
            raise BundleRefused(str(error)) from None
        state = _accepted(store, offer)
        if offer.digest == state.digest and state.slot is not None:
            _renew(store, store.slot(state.slot), offer)
            return UpdateResult(False, offer.digest)
        if state.gave_up(offer.digest):
            raise _known_bad(offer.digest)
        slot = store.slot(_pointed_to_whole(store, keys).inactive())
        _fetch(remote, offer, store, slot)
        return _switch(store, offer, slot, pem)


def _remembered(store: Store, keys: TrustedKeys) -> State:
    """Return the pointer, with the highest sequence that any signed document here proves."""
    state, newest = restored(store), newest_release(store, keys)
    if newest is None or newest.sequence <= state.sequence:
        return store.change(lambda now: now)  # repairs a damaged copy
    return store.change(lambda now: now.seen(newest))


def _is_for(settings: DeviceSettings, state: State) -> bool:
    """Return whether the release that was verified last is what the settings ask for now."""
    return settings.namespace in ("", state.namespace) and settings.cluster in ("", state.cluster)


def _is_done(state: State, published: layout.PublishedBundle) -> bool:
    """Return whether a release that was verified before needs no further work.

    Raises ModelUnusable for one that does not work here.
    """
    if state.gave_up(published.model.digest):
        raise _known_bad(published.model.digest)
    return published.model.digest == state.digest


def _known_bad(digest: str) -> ModelUnusable:
    return ModelUnusable(
        f"{digest} does not work on this device; waiting for a newer release"
        " (fourways-agent retry tries it again)"
    )


def _verified(
    settings: DeviceSettings,
    keys: TrustedKeys,
    remote: Remote,
    published: layout.PublishedBundle,
    state: State,
) -> _Offer:
    """Fetch the small documents and verify their signature, target and order.

    Raises MalformedBundle, BundleRefused, TemporaryFailure.
    """
    digest = published.model.digest
    raw = remote.blob(published.model)
    where, release_at = layout.read_signature_manifest(remote.blob(published.signature), digest)
    signature = remote.blob(where)
    documents = Documents(raw, remote.blob(release_at), signature)
    release = keys.verify(documents)
    # Nothing is trusted before this point.
    _check_receiver(release, settings, state)
    sequence = release.sequence
    older = sequence < state.sequence and digest != state.digest
    if older or (sequence == state.sequence and digest != state.accepted):
        raise BundleRefused(
            f"release {sequence} is older than release {state.sequence}, which this device has "
            "already accepted; to go back to an old model, publish it again"
        )
    found = layout.read_model_manifest(raw)
    return _Offer(documents, release, published.signature.digest, found)


def _check_receiver(release: Release, settings: DeviceSettings, state: State) -> None:
    """Reject a bundle that is for other devices. Raises BundleRefused."""
    if (release.deployment, release.target) != (settings.deployment, settings.target):
        raise BundleRefused(
            f"the bundle is for {release.target} of {release.deployment}, and this device is"
            f" {settings.target} of {settings.deployment}"
        )
    for what, its, ours in (
        ("namespace", release.namespace, settings.namespace or state.namespace),
        ("cluster", release.cluster, settings.cluster or state.cluster),
    ):
        if ours and its != ours:
            raise BundleRefused(
                f"the bundle is of {what} {displayed(its) or '(none)'}, and this device takes"
                f" bundles of {what} {ours}; to move the device, give --{what}"
            )


def _accepted(store: Store, offer: _Offer) -> State:
    """Record that this release was verified, before anything else is done with it."""
    release = offer.release

    def seen(state: State) -> State:
        if release.sequence < state.sequence:
            return state
        return replace(state.seen(release), verified=offer.signature)

    if release.sequence >= store.read().sequence:
        store.keep_newest(offer.documents)
    return store.change(seen)


def _renew(store: Store, slot: Path, offer: _Offer) -> None:
    """Write the newer documents of the active bundle into its slot."""
    newest = offer.release.sequence >= store.read().sequence
    if newest and not holds_documents(slot, offer.documents):
        write_documents(slot, offer.documents)


def _repair(store: Store, state: State, keys: TrustedKeys) -> None:
    """Repair both copies of the documents in the active slot."""
    if state.slot is None:
        return
    slot = store.slot(state.slot)
    with suppress(BundleRefused):  # the next start notices that and uses another slot
        ours = [it for it in verified_documents(slot, keys) if it[0].digest == state.digest]
        newest = max(ours, key=lambda it: it[1].sequence, default=None)
        if newest is not None and not holds_documents(slot, newest[0]):
            write_documents(slot, newest[0])


def _pointed_to_whole(store: Store, keys: TrustedKeys) -> State:
    """Return the settled pointer, away from a damaged slot: the other one is all that answers."""
    state = _settled(store)
    if state.slot is None or state.slot in {it.name for it in whole_slots(store, keys)}:
        return state
    repoint(store, state)
    return store.read()


def _settled(store: Store) -> State:
    """Return the pointer once its model has served: until then the other slot is the fallback.

    If a new model does not get to serve, the previous one replaces it.
    """
    for _ in range(MAX_CRASHES + 1):
        state = store.read()
        if state.slot is None or state.confirmed:
            return state
        try:
            check.boot(store.folder)
        except TemporaryFailure as error:
            logger.warning("the previous model does not start: %s", error)
            break
        except AgentError as error:
            logger.warning("the previous model does not start: %s", error)

    def left(state: State) -> State:
        can_go_back = not state.confirmed and state.previous_slot is not None
        return state.fallen_back(bad=False) if can_go_back else state

    return store.change(left)


def _fetch(remote: Remote, offer: _Offer, store: Store, slot: Path) -> None:
    """Fetch the bundle's files into the slot; those that are there already are kept."""
    wanted = {name: it for name, it in offer.files.items() if not is_whole(slot, name, it)}
    kept = {part_of(Path(name)).name for name in wanted} | (offer.files.keys() - wanted.keys())
    leftovers = _files_but(slot / "files", kept)
    # Check before the slot stops being the fallback: a full disk must cost nothing.
    _check_room(store, slot, wanted, leftovers)
    store.change(lambda state: replace(state, previous_slot=None, previous_digest=None))
    files.StateFolder(store.folder).make(f"{slot.relative_to(store.folder)}/files")
    for file in leftovers:
        files.delete(file)
    try:
        for name, descriptor in wanted.items():
            remote.download(descriptor, file_of(slot, name))
        write_documents(slot, offer.documents)
    except NoSpace:
        files.delete(slot)  # the device needs the space more than half a bundle
        raise


def _files_but(folder: Path, kept: set[str]) -> list[Path]:
    return [it for it in folder.iterdir() if it.name not in kept] if folder.is_dir() else []


def _check_room(
    store: Store, slot: Path, wanted: Mapping[str, Descriptor], leftovers: list[Path]
) -> None:
    """Raise NoSpace if the files do not fit.

    What an interrupted download left is not needed again, and leftovers are deleted first.
    """
    started = sum(min(_size(part_of(file_of(slot, n))), it.size) for n, it in wanted.items())
    needed = sum(it.size for it in wanted.values()) - started + SPARE_BYTES
    free = files.free_bytes(store.folder) + sum(map(_size, leftovers))
    if free < needed:
        raise NoSpace(f"the bundle needs {needed >> 20} MiB of disk, {free >> 20} MiB are free")


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0


def _switch(store: Store, offer: _Offer, slot: Path, key_pem: str) -> UpdateResult:
    try:
        figures = check.test_model(slot, key_pem, offer.digest)
    except ModelUnusable as error:
        store.change(lambda state: state.given_up(offer.digest))
        files.delete(slot)
        raise ModelUnusable(f"self-test: {error}") from None
    logger.info("self-test passed", extra=figures)
    store.change(lambda state: state.pointed(slot.name, offer.digest))
    version = layout.read_annotations(offer.documents.manifest).get(layout.VERSION_NOTE, "")
    logger.info("switched", extra={"digest": offer.digest, "version": version})
    return UpdateResult(True, offer.digest, version)
