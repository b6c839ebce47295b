"""Starts the model that the pointer names, and decides when a new one is rejected.

A model that has served before is simply loaded. A new one is started by one program at a time,
under a lock; the others wait and share the outcome. Before the model is loaded, the pointer records
which process starts it, and in which boot of the machine. A start that never finished is then
judged by its cause:

* The interpreter left a note of a fatal signal (SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL): the
  model crashed, and after :data:`MAX_CRASHES` such crashes it is rejected.
* The process is gone without a note: a power cut, a kill, or the machine ran out of memory. That
  says nothing about the model and never rejects it. If it happens :data:`MAX_STARTS` times in one
  boot, the previous model serves until the machine boots again; if there is no previous model, the
  new one is tried again.
"""

from __future__ import annotations

import faulthandler
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from fourways_runtime.errors import WorkloadError

from . import files
from .errors import AgentError, BundleRefused, Busy, ModelUnusable, NoModel, NoSpace
from .loading import LoadedBundle, lacks_memory, load
from .model_calls import CALLS
from .recovery import repoint, restored, slot_faults, trusted_keys, whole_slots
from .slot import Bundle, open_bundle
from .state import State, Store

logger = logging.getLogger("fourways.agent")

MAX_CRASHES = 3
"""Crashes or failures at the start after which a new model is rejected."""

MAX_STARTS = 3
"""Unfinished starts in one boot after which the previous model is preferred."""

LOCK_SECONDS = 300.0
"""Maximum time a program waits for another one to start a new model."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the ID of this boot of the machine; empty if the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def begun(state: State, *, crashed: bool, boot: str, pid: int) -> State:
    """Return the state in which ``pid`` starts the new model, or in which it is rejected.

    Called under the start lock: a ``pid`` in the state belongs to a process that is gone.
    ``crashed``: that process left a note of a fatal signal. If the model must not be started in
    this boot, ``pid`` is 0 in the returned state.
    """
    if state.slot is None or state.confirmed:
        return state
    crashes = state.crashes + (crashed and state.pid != 0)
    if crashes >= MAX_CRASHES:
        return state.fallen_back(bad=True)
    boots = state.boots if state.boot_id == boot else 0
    state = replace(state, crashes=crashes, boots=boots, boot_id=boot, pid=0)
    if boots >= MAX_STARTS and state.previous_slot is not None:
        return state
    return replace(state, boots=boots + 1, pid=pid)


def failed(state: State, error: Exception) -> State:
    """Return the state after the start of the new model failed with an error of the model."""
    if lacks_memory(error):
        return replace(state, pid=0)
    state = replace(state, pid=0, crashes=state.crashes + 1)
    return state.fallen_back(bad=True) if state.crashes >= MAX_CRASHES else state


def is_damage(error: Exception) -> bool:
    """Return whether an error is about the files on this disk and not about the model."""
    return isinstance(error, BundleRefused) and not isinstance(error, ModelUnusable)


def boot(store: Store, threads: int = 1) -> LoadedBundle:
    """Start the model the pointer names, or the previous one.

    Raises:
        NoModel: no model on this device works.

    """
    state = restored(store)
    if state.slot is None or state.digest is None:
        raise NoModel(_why_none(store, state))
    if not state.confirmed:
        return _start_new(store, state, threads)
    try:
        loaded = _opened(store, state, threads)
        CALLS.run(loaded.proof)
    except (AgentError, WorkloadError) as error:
        logger.error("the model in slot %s does not start: %s", state.slot, error)
        if is_damage(error):
            repoint(store, state)
        return _way_back(store, state, error, threads)
    return loaded


def _why_none(store: Store, state: State) -> str:
    if state.bad:
        return (
            "no model on this device works; fourways-agent update fetches a newer release,"
            " fourways-agent retry tries those that were given up again"
        )
    faults = slot_faults(store)
    if faults:
        return f"no bundle on this device is whole and signed by a trusted key ({faults})"
    return "there is no model on this device yet; fourways-agent update fetches it"


def _start_new(store: Store, state: State, threads: int) -> LoadedBundle:
    """Start a model that has not served yet; one program at a time."""
    note = store.folder / "crash.txt"
    with _one_start_at_a_time(store):
        crashed = _taken(note)
        now = _keep(
            store,
            lambda now: begun(now, crashed=crashed, boot=boot_id(), pid=os.getpid()),
            state,
        )
        if now.pid == os.getpid():
            return _first_answer(store, now, note, threads)
    if now.gave_up(state.digest or ""):
        logger.error("%s is not started again: it crashed %d times", state.digest, MAX_CRASHES)
        return _way_back(store, state, ModelUnusable("the new model is not started again"), threads)
    if (now.digest, now.confirmed) == (state.digest, False):
        fault = ModelUnusable("it has not finished starting since the device booted")
        logger.error("%s: %s", state.digest, fault)
        return _way_back(store, state, fault, threads)
    return boot(store, threads)  # another program has started it, or switched


def _first_answer(store: Store, state: State, note: Path, threads: int) -> LoadedBundle:
    try:
        with _crash_note(note):
            loaded = _opened(store, state, threads)
            CALLS.run(loaded.self_test)
    except (AgentError, WorkloadError) as error:
        fault: Exception = error
        logger.error("the new model in slot %s does not start: %s", state.slot, fault)
        if is_damage(fault):
            repoint(store, state)
        else:
            _keep(store, lambda now: _unless_switched(now, state, failed(now, fault)))
        return _way_back(store, state, fault, threads)
    except BaseException:
        # The surrounding program interrupted the start: that says nothing about the model.
        ended = state.boots - 1
        _keep(store, lambda now: _unless_switched(now, state, replace(now, pid=0, boots=ended)))
        raise
    _keep(store, lambda now: _unless_switched(now, state, now.answered()))
    return loaded


def _unless_switched(now: State, started: State, then: State) -> State:
    """Return ``then``, unless another process has switched to another bundle in the meantime."""
    return then if (now.slot, now.digest) == (started.slot, started.digest) else now


def _keep(store: Store, how: Callable[[State], State], state: State | None = None) -> State:
    """Change the pointer; if the disk cannot be written, continue with the changed value."""
    try:
        return store.change(how)
    except NoSpace as error:
        logger.warning("the pointer cannot be written: %s", error)
        return how(store.read() if state is None else state)


def _opened(store: Store, state: State, threads: int) -> LoadedBundle:
    assert state.slot is not None  # noqa: S101  (callers have looked)
    bundle = open_bundle(store.slot(state.slot), trusted_keys(store), state.digest)
    return _loaded(bundle, threads)


def _loaded(bundle: Bundle, threads: int) -> LoadedBundle:
    return CALLS.run(lambda: load(bundle, threads))


def _way_back(store: Store, state: State, error: Exception, threads: int) -> LoadedBundle:
    """Start another complete bundle on this disk.

    Tries the same one first, in case the slot folders were exchanged, then the previous one, then
    any that is signed.
    """
    faults = [str(error)]
    found = [
        it
        for it in whole_slots(store, trusted_keys(store))
        if not store.read().gave_up(it.bundle.digest)
    ]
    wanted = (state.digest, state.previous_digest)
    found.sort(key=lambda it: [it.bundle.digest != digest for digest in wanted])
    for it in found:
        if (it.name, it.bundle.digest) == (state.slot, state.digest):
            continue
        try:
            loaded = _loaded(it.bundle, threads)
            CALLS.run(loaded.proof)
        except (AgentError, WorkloadError) as second:
            faults.append(str(second))
            continue
        return loaded
    raise NoModel(f"no model on this device starts: {'; '.join(faults)}") from None


# ---------------------------------------------------------------- one start, and how it ended


@contextmanager
def _one_start_at_a_time(store: Store) -> Iterator[None]:
    """Hold the start lock. Raises NoModel if another program keeps it too long."""
    with ExitStack() as held:
        try:
            lock = files.locked(store.folder / "start.lock", wait=True, seconds=LOCK_SECONDS)
            held.enter_context(lock)
        except Busy:
            raise NoModel(
                f"another program has been starting the new model for {LOCK_SECONDS:g} s"
            ) from None
        except NoSpace as error:
            logger.warning("the start cannot be counted: %s", error)
        yield


@contextmanager
def _crash_note(note: Path) -> Iterator[None]:
    """Make the interpreter record a fatal signal that ends the process in the meantime.

    A program that has its own fault handler keeps it: its crashes leave no note here.
    """
    if faulthandler.is_enabled():
        yield
        return
    try:
        files.write(note, b"")
        to = note.open("r+b")
    except (NoSpace, OSError):
        yield
        return
    with to:
        faulthandler.enable(to, all_threads=False)
        try:
            yield
        finally:
            faulthandler.disable()


def _taken(note: Path) -> bool:
    """Return whether the previous start left a note, and delete it so that it counts once.

    It is deleted before the pointer is written: a power cut in between loses a crash instead of
    counting it twice.
    """
    try:
        crashed = note.read_bytes().startswith(b"Fatal Python error")
        files.delete(note)
    except (NoSpace, OSError):
        return False
    return crashed
