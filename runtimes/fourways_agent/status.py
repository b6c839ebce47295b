"""What ``fourways-agent status`` shows; it reads the state folder and changes nothing."""

from __future__ import annotations

from typing import Any

from .errors import AgentError, BundleRefused
from .recovery import trusted_keys
from .slot import Bundle, open_bundle
from .state import SLOTS, State, Store
from .trust import TrustedKeys


def status_of(store: Store) -> tuple[dict[str, Any], int]:
    """Return what to show, and the exit code: 0, 3 for a damaged slot, 4 if no slot can be used."""
    state, settings = store.read(), store.settings()
    shown: dict[str, Any] = {
        "slot": state.slot,
        "digest": state.digest,
        "confirmed": state.confirmed,
        "crashes": state.crashes,
        "boots": state.boots,
        "sequence": state.sequence if state.sequence >= 0 else None,
        "fallback": state.previous_digest,
        "givenUp": [it.digest for it in state.bad],
    }
    about, code = _about_the_slots(store, state)
    shown |= about
    if settings is not None:
        shown |= {
            "cluster": settings.cluster or state.cluster or None,
            "namespace": settings.namespace or state.namespace or None,
            "deployment": settings.deployment,
            "target": settings.target,
            "gateway": settings.gateway,
            "reportsDrift": bool(settings.report_drift),
        }
    return shown, code


def _about_the_slots(store: Store, state: State) -> tuple[dict[str, Any], int]:
    """Return what to show about the slots, and the exit code."""
    names = [name for name in SLOTS if store.slot(name).is_dir()]
    if not names:
        return {}, 0
    try:
        keys = trusted_keys(store)
    except AgentError as error:
        return {"fault": str(error)}, error.exit_code
    found = {name: _opened(store, name, keys) for name in names}
    shown: dict[str, Any] = {"slots": {name: _shown(it) for name, it in found.items()}}
    active = found.get(state.slot or "")
    if isinstance(active, Bundle) and active.digest == state.digest:
        return {"version": active.version, "variant": active.variant} | shown, 0
    if state.slot is None:
        shown["fault"] = "the pointer names no slot"
    elif isinstance(active, Bundle):
        shown["fault"] = f"slot {state.slot} holds another bundle than the pointer names"
    else:
        shown["fault"] = f"slot {state.slot}: {active or 'is missing'}"
    whole = [
        (it.release.sequence, name)
        for name, it in found.items()
        if isinstance(it, Bundle) and not state.gave_up(it.digest)
    ]
    shown["nextStart"] = (
        f"uses slot {max(whole)[1]}"
        if whole
        else "finds no usable model; fourways-agent update fetches one"
    )
    return shown, BundleRefused.exit_code


def _opened(store: Store, name: str, keys: TrustedKeys) -> Bundle | str:
    """Return the bundle in a slot, or what is wrong with it."""
    try:
        return open_bundle(store.slot(name), keys)
    except BundleRefused as error:
        return str(error)


def _shown(found: Bundle | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"fault": found}
    return {
        "digest": found.digest,
        "version": found.version,
        "variant": found.variant,
        "sequence": found.release.sequence,
    }
