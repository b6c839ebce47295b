"""Rebuilds the pointer from the signed documents on this disk.

Nothing here trusts an unsigned file: a slot counts if its documents are signed by a trusted key and
every file matches the manifest; a sequence counts if the release that holds it is signed. A pointer
that was deleted, emptied or exchanged therefore neither stops the device from serving nor makes it
accept older releases.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fourways_runtime.bundle_layout import Release

from .errors import AgentError, BundleRefused, NoModel, NoSpace
from .slot import Bundle, open_bundle, verified_documents
from .state import SLOTS, State, Store
from .trust import TrustedKeys

logger = logging.getLogger("fourways.agent")


@dataclass(frozen=True, slots=True)
class WholeSlot:
    """A slot with a complete, signed bundle."""

    name: str
    bundle: Bundle


def trusted_keys(store: Store) -> TrustedKeys:
    """Return the keys of this device. Raises NoModel if its settings are lost."""
    try:
        return store.needs_settings().read_keys()[0]
    except AgentError as error:
        raise NoModel(f"no bundle can be verified: {error}") from None


def whole_slots(store: Store, keys: TrustedKeys) -> list[WholeSlot]:
    """Return the slots with a complete signed bundle of this device's deployment, newest first."""
    settings = store.settings()
    found = []
    for name in SLOTS:
        try:
            found.append(WholeSlot(name, open_bundle(store.slot(name), keys)))
        except BundleRefused:
            continue

    def order(it: WholeSlot) -> tuple[bool, int]:
        release = it.bundle.release
        ours = settings is not None and (release.deployment, release.target) == (
            settings.deployment,
            settings.target,
        )
        return ours, release.sequence

    return sorted(found, key=order, reverse=True)


def slot_faults(store: Store) -> str:
    """Return why no slot can be used; empty on a new device. Raises NoModel without keys."""
    findings = []
    for name in SLOTS:
        if store.slot(name).is_dir():
            try:
                open_bundle(store.slot(name), trusted_keys(store))
            except BundleRefused as error:
                findings.append(f"slot {name}: {error}")
    return "; ".join(findings)


def newest_release(store: Store, keys: TrustedKeys) -> Release | None:
    """Return the newest release whose signed documents are on this disk."""
    found = []
    newest = store.newest()
    if newest is not None:
        try:
            found.append(keys.verify(newest))
        except BundleRefused:
            logger.warning("newest.json is not signed by a trusted key, and is ignored")
    for name in SLOTS:
        try:
            found += [release for _, release in verified_documents(store.slot(name), keys)]
        except BundleRefused:
            continue
    return max(found, key=lambda release: release.sequence, default=None)


def restored(store: Store) -> State:
    """Return the pointer, rebuilt from the slots if it names none.

    Raises NoModel if a slot could be used but there is no key to verify it.
    """
    state = store.read()
    if state.slot is not None or not any(store.slot(name).is_dir() for name in SLOTS):
        return state
    keys = trusted_keys(store)
    slots, newest = whole_slots(store, keys), newest_release(store, keys)

    def made_again(now: State) -> State:
        return now if now.slot is not None else _rebuilt(now, slots, newest)

    try:
        state = store.change(made_again)
    except NoSpace as error:
        logger.warning("the rebuilt pointer cannot be saved: %s", error)
        state = made_again(state)
    if state.slot is not None:
        logger.warning("the pointer was rebuilt from slot %s", state.slot)
    return state


def repoint(store: Store, damaged: State) -> None:
    """Point away from a damaged slot to a complete one; best effort.

    The damaged bundle may be fetched again; another complete slot is started like a new one.
    """
    keys = trusted_keys(store)
    slots = whole_slots(store, keys)

    def away(now: State) -> State:
        if (now.slot, now.digest) != (damaged.slot, damaged.digest):
            return now
        return _rebuilt(now.without_slots(), slots, None)

    try:
        store.change(away)
    except NoSpace as error:
        logger.warning("the pointer to a damaged slot cannot be changed: %s", error)


def _rebuilt(state: State, slots: Sequence[WholeSlot], newest: Release | None) -> State:
    """Return the state that points to the newest usable slot, with the other as the fallback."""
    if newest is not None and newest.sequence > state.sequence:
        state = state.seen(newest)
    for it in reversed([it for it in slots if not state.gave_up(it.bundle.digest)]):
        state = state.pointed(it.name, it.bundle.digest)
    return state
