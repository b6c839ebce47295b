"""What this device counts of the records it scores, and tells the gateway if its owner allows it.

Owns ``records.json`` in the state folder: counts by bin of the training profile in the bundle, and
no value. Every program that scores adds to it about once a minute; whoever updates the device sends
it. Without the word of the owner (``--report-drift yes``) nothing is counted, kept or sent.

A report holds all that was not sent yet, and what was sent for the first time within the window
that the gateway names. So a device that was offline tells later, and a report that is lost or
repeated changes nothing.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from fourways_api import Contract
from fourways_api.training_profile import InvalidProfile, read_profile
from fourways_runtime import bundle_layout as layout
from fourways_runtime.scoring.device_report import Tally, encode
from fourways_runtime.scoring.live_profile import RecordNotes
from fourways_runtime.scoring.profile import RecordProfiler

from . import files
from .errors import AgentError
from .loading import LoadedBundle
from .remote import Remote
from .sealed import SealedDocument
from .state import DeviceSettings, Store

logger = logging.getLogger("fourways.agent")

FLUSH_SECONDS = 60.0
"""Time between two additions of a program's counts to the file."""

DEFAULT_WINDOW, SHORTEST_WINDOW, LONGEST_WINDOW = 3600.0, 60.0, 7 * 86_400.0
_SLICES = 6
"""Parts of a window that what was sent is kept in."""

_LOCK_SECONDS = 5.0
_NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class SentSlice:
    """Counts that the gateway has."""

    at: float
    """When they were sent for the first time, by this device's clock."""

    tally: Tally


@dataclass(frozen=True, slots=True)
class RecordWindow:
    """The content of the file."""

    profile: str = ""
    """Digest of the profile that is counted by."""

    device: str = ""
    """A number by chance, which tells this device from others with the same credentials."""

    sequence: int = 0
    window: float = DEFAULT_WINDOW
    pending: Tally = _NOTHING
    """Not in any report yet."""

    unsent: Tally = _NOTHING
    """In a report that may not have arrived."""

    sent: tuple[SentSlice, ...] = ()

    @property
    def whole(self) -> Tally:
        """All counts of the next report, but those still pending."""
        total = self.unsent
        for each in self.sent:
            total = total.plus(each.tally)
        return total

    def added(self, profile: str, tally: Tally) -> RecordWindow:
        """Return the window with more counts; under another profile, with these only."""
        if profile != self.profile:
            return replace(self, profile=profile, pending=tally, unsent=_NOTHING, sent=())
        return replace(self, pending=self.pending.plus(tally))

    def to_send(self, now: float) -> RecordWindow:
        """Return the window whose :attr:`whole` is to be sent."""
        # A clock that was set says nothing of the age.
        kept = tuple(each for each in self.sent if abs(now - each.at) < self.window)
        if not self.pending and kept == self.sent:
            return self
        unsent = self.unsent.plus(self.pending)
        return replace(self, sequence=self.sequence + 1, pending=_NOTHING, unsent=unsent, sent=kept)

    def arrived(self, now: float, window: float) -> RecordWindow:
        """Return the window after its report arrived; ``window`` is the gateway's."""
        window = min(LONGEST_WINDOW, max(SHORTEST_WINDOW, window))
        sent = self.sent
        if self.unsent:
            last = sent[-1] if sent else None
            if last is not None and abs(now - last.at) < self.window / _SLICES:
                sent = (*sent[:-1], replace(last, tally=last.tally.plus(self.unsent)))
            else:
                sent = (*sent, SentSlice(now, self.unsent))
        return replace(self, unsent=_NOTHING, sent=sent, window=window)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> RecordWindow:
        """Read the file's content. Raises TypeError, ValueError, LookupError."""
        return cls(
            profile=str(found["profile"]),
            device=str(found["device"]),
            sequence=int(found["sequence"]),
            window=float(found["window"]),
            pending=_tally(found["pending"]),
            unsent=_tally(found["unsent"]),
            sent=tuple(SentSlice(float(it["at"]), _tally(it["tally"])) for it in found["sent"]),
        )


def _tally(found: dict[str, Any]) -> Tally:
    inputs, outputs = (tuple(map(tuple, found[side])) for side in ("inputs", "outputs"))
    return Tally(float(found["records"]), float(found["rejects"]), inputs, outputs)


class RecordFile:
    """The counts of one device, on its disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sealed = SealedDocument(store.folder / "records.json")

    def read(self) -> RecordWindow:
        """Return the content; that of a new device if neither copy is valid."""
        found = self._sealed.read()
        try:
            return RecordWindow() if found is None else RecordWindow.from_json(found)
        except (TypeError, ValueError, LookupError):
            return RecordWindow()

    def change(self, how: Callable[[RecordWindow], RecordWindow]) -> RecordWindow:
        """Replace the content with the result of ``how`` and return it. Raises NoSpace, Busy."""
        lock = self._store.folder / "records.lock"
        with files.locked(lock, wait=True, seconds=_LOCK_SECONDS):
            old = self.read()
            new = how(old)
            if not new.device:
                new = replace(new, device=secrets.token_hex(8))
            if new != old:
                self._sealed.write(asdict(new))
            return new

    def delete(self) -> None:
        """Delete the counts. Raises NoSpace."""
        self._sealed.delete()


class RecordCounter:
    """Counts the records that one program scores with one model. Thread-safe."""

    def __init__(self, store: Store, contract: Contract, profile: bytes) -> None:
        """Read the profile. Raises InvalidProfile."""
        self._store = store
        self._digest = layout.digest_of(profile)
        self._profiler = RecordProfiler(read_profile(profile, contract))
        self._lock = threading.Lock()
        self._due = time.monotonic() + FLUSH_SECONDS
        self.notes = RecordNotes(self._profiler, [field.name for field in contract.flat_inputs])

    def tick(self) -> None:
        """Add the counts to the file on a thread, if that is due: the disk may be slow."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + FLUSH_SECONDS
            threading.Thread(target=self.flush, name="records", daemon=True).start()

    def flush(self) -> None:
        """Add what was counted to the file; never raises."""
        with self._lock:
            try:
                tally = Tally.of(self.notes.take(), self._profiler)
                if tally and _may_report(self._store.settings()):
                    RecordFile(self._store).change(lambda now: now.added(self._digest, tally))
            except AgentError as error:
                logger.warning("records of a minute are not counted: %s", error)
            except Exception:  # predictions do not depend on it
                logger.exception("records of a minute are not counted")


def counter_of(store: Store, loaded: LoadedBundle) -> RecordCounter | None:
    """Return what counts the records of a bundle; None if nobody asks for it or it is refused."""
    file = loaded.bundle.files.get(layout.PROFILE_FILE)
    if file is None or not _may_report(store.settings()):
        return None
    try:
        return RecordCounter(store, loaded.contract, file.read_bytes())
    except (InvalidProfile, OSError) as fault:
        logger.warning("records are not counted: the bundle's profile: %s", fault)
        return None


def _may_report(settings: DeviceSettings | None) -> bool:
    return settings is not None and bool(settings.report_drift)


def tell(store: Store, settings: DeviceSettings, clock: Callable[[], float] = time.time) -> bool:
    """Send the gateway what was counted; return whether it took a report. Never raises AgentError.

    Where the owner does not allow it, what was counted before is deleted.
    """
    kept = RecordFile(store)
    try:
        if not _may_report(settings):
            kept.delete()
            return False
        before = kept.read()
        now = kept.change(lambda window: window.to_send(clock()))
        whole = now.whole
        # The last report of a window that is over is empty.
        if not whole and now.sent == before.sent:
            return False
        report = encode(whole, now.profile, now.device, now.sequence)
        window = Remote.of(settings).report_records(report)
        kept.change(lambda then: then.arrived(clock(), window) if _same(then, now) else then)
    except AgentError as error:
        # An offline device is no fault, and a deployment may have ceased to compare records.
        logger.info("records are not reported: %s", error)
        return False
    return True


def _same(then: RecordWindow, now: RecordWindow) -> bool:
    return (then.profile, then.sequence) == (now.profile, now.sequence)
