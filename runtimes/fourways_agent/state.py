"""What a device remembers: which of its two slots is active, and what it must not fetch again.

Owns the state folder and every change of the pointer. Pointer and settings are kept in two
checksummed copies each. The pointer can be rebuilt from the signed slots, the highest sequence from
``newest.json`` and the slots (:mod:`fourways_agent.recovery`). A slot is written only while the
pointer names it neither as active nor as the fallback.

::

    STATE/state.json       the pointer, and state.copy.json
    STATE/settings.json    gateway, deployment, target, key as last given, and settings.copy.json
    STATE/newest.json      the signed documents of the newest release this device has verified
    STATE/slots/a, b/      documents.json, signed/, signature.json, files/
    STATE/crash.txt        how the process crashed while it started a new model
    STATE/features.sqlite  device features as the gateway last returned them
    STATE/records.json     counts of scored records, and records.copy.json; only if that is allowed
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from fourways_runtime.bundle_layout import MalformedBundle, Release

from . import files
from .errors import AgentConfigError
from .sealed import SealedDocument
from .trust import Documents, TrustedKeys

SLOTS = ("a", "b")
_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A bundle that does not work on this device."""

    digest: str
    sequence: int
    """The release that was rejected: a newer release of the same bundle is tried again."""


@dataclass(frozen=True, slots=True)
class State:
    """The pointer."""

    slot: str | None = None
    """The active slot."""

    digest: str | None = None
    """Digest of its model manifest."""

    confirmed: bool = False
    """Whether it has served since the switch to it."""

    crashes: int = 0
    """Starts of it, not confirmed yet, that ended because of the model."""

    boots: int = 0
    """Starts of it, not confirmed yet, in this boot of the machine, however they ended."""

    boot_id: str = ""
    """The boot of the machine that ``boots`` counts for."""

    pid: int = 0
    """The process that is starting it, or was when it ended; 0 if none."""

    previous_slot: str | None = None
    """The slot to fall back to; None while that slot is being written."""

    previous_digest: str | None = None
    sequence: int = -1
    """Highest verified release: older ones are rejected."""

    accepted: str | None = None
    """Digest of the manifest of that release."""

    namespace: str = ""
    """Namespace of that release; once known, bundles of other namespaces are rejected."""

    cluster: str = ""
    """Cluster of that release; once known, bundles of other clusters are rejected."""

    verified: str | None = None
    """Digest of the last verified signature manifest."""

    bad: tuple[GivenUp, ...] = ()
    """Bundles that do not work on this device."""

    def gave_up(self, digest: str) -> bool:
        """Return whether a bundle is known not to work here."""
        return any(it.digest == digest for it in self.bad)

    def given_up(self, digest: str) -> State:
        """Return the state that records a bundle as unusable."""
        others = (it for it in self.bad if it.digest != digest)
        return replace(self, bad=(*others, GivenUp(digest, self.sequence))[-_REMEMBERED:])

    def seen(self, release: Release) -> State:
        """Return the state after a release was verified; an older one changes nothing.

        A newer release of a rejected bundle lifts the rejection.
        """
        sequence, manifest = release.sequence, release.manifest
        if sequence < self.sequence:
            return self
        kept = (it for it in self.bad if it.digest != manifest or it.sequence >= sequence)
        return replace(
            self,
            sequence=sequence,
            accepted=manifest,
            namespace=release.namespace or self.namespace,
            cluster=release.cluster or self.cluster,
            bad=tuple(kept),
        )

    def pointed(self, slot: str, digest: str) -> State:
        """Return the state after a switch: the previous slot becomes the fallback."""
        return replace(
            self._not_started(),
            slot=slot,
            digest=digest,
            confirmed=False,
            previous_slot=self.slot,
            previous_digest=self.digest,
        )

    def answered(self) -> State:
        """Return the state after a new model has served."""
        return replace(self._not_started(), confirmed=True)

    def fallen_back(self, *, bad: bool) -> State:
        """Return the state that points to the previous slot.

        ``bad``: this bundle does not work here. Otherwise it may be fetched again.
        """
        if bad and self.digest is not None:
            return self.given_up(self.digest).fallen_back(bad=False)
        return replace(
            self._not_started(),
            slot=self.previous_slot,
            digest=self.previous_digest,
            confirmed=self.previous_slot is not None,
            previous_slot=None,
            previous_digest=None,
        )

    def without_slots(self) -> State:
        """Return the state that points to no slot and keeps everything else."""
        return replace(
            self._not_started(),
            slot=None,
            digest=None,
            confirmed=False,
            previous_slot=None,
            previous_digest=None,
        )

    def _not_started(self) -> State:
        return replace(self, crashes=0, boots=0, boot_id="", pid=0)

    def inactive(self) -> str:
        """Return the slot a bundle may be written to."""
        return SLOTS[1] if self.slot == SLOTS[0] else SLOTS[0]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> State:
        """Read a pointer, also one of an older agent. Raises TypeError, ValueError."""
        known = {it.name: found[it.name] for it in fields(cls) if it.name in found}
        sequence = int(known.get("sequence", -1))
        known["bad"] = tuple(
            GivenUp(it, sequence) if isinstance(it, str) else GivenUp(**it)
            for it in known.get("bad", ())
        )
        state = cls(**known)
        if state.slot not in (None, *SLOTS) or state.previous_slot not in (None, *SLOTS):
            raise ValueError("slot")
        return state


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Where this device gets its bundles, and which keys it trusts."""

    gateway: str
    deployment: str
    target: str
    key: str
    """Path of the file with the public keys, PEM."""

    namespace: str = ""
    """Namespace of the deployment; empty: that of the first release."""

    cluster: str = ""
    """Name of its cluster; empty: that of the first release that names one."""

    key_pem: str = ""
    """Content of that file when it was last read, for when it is unreadable."""

    api_key_file: str = ""
    """Path of the file with this device's API key for the gateway; empty: it needs none."""

    ca_file: str = ""
    """Path of the file with the authorities that the gateway's certificate must be from, PEM;
    empty: those of this machine."""

    insecure: str = ""
    """Not empty: this device may ask a gateway without TLS."""

    features_max_age: str = "24h"
    """Age from which a device feature that the gateway returned is not used any more."""

    report_drift: str = ""
    """Not empty: the owner allows this device to count its records by the bundle's training
    profile, and to send the counts."""

    def credentials(self) -> dict[str, str]:
        """Return the header that identifies this device; the file is read each time.

        Empty without a file, and while it cannot be read: the gateway then refuses the request.
        """
        if not self.api_key_file:
            return {}
        try:
            key = Path(self.api_key_file).read_text("ascii").strip()
        except (OSError, ValueError):
            return {}
        return {"Authorization": f"Bearer {key}"}

    def read_keys(self) -> tuple[TrustedKeys, str]:
        """Return the keys and their PEM; the remembered ones if the file is unusable.

        Raises AgentConfigError if neither can be read.
        """
        try:
            pem = Path(self.key).read_text("ascii")
            return TrustedKeys.parse(pem.encode()), pem
        except (OSError, ValueError) as error:
            fault = AgentConfigError(f"--key: the file cannot be read: {_cause(error)}")
        except AgentConfigError as error:
            fault = AgentConfigError(f"--key: {error}")
        if not self.key_pem:
            raise fault
        return TrustedKeys.parse(self.key_pem.encode()), self.key_pem


def _cause(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else "it is not text"


class Store:
    """The state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.json"
        self._state = SealedDocument(self._file)
        self._settings = SealedDocument(folder / "settings.json")
        self._newest = folder / "newest.json"

    def prepare(self) -> None:
        """Create the folder, or take one of ours; close it to others who may write there.

        Raises:
            AgentConfigError: It belongs to another user, who could replace the model and its keys.
            NoSpace: It cannot be written.

        """
        with files.disk():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self.folder.stat()
            # Windows has no such owners and modes.
            if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
                raise AgentConfigError(
                    f"--state: {self.folder} belongs to another user; name a folder of your own"
                )
            if status.st_mode & 0o022 and os.name == "posix":
                self.folder.chmod(0o700)

    def slot(self, name: str) -> Path:
        """Return a slot's folder."""
        return self.folder / "slots" / name

    def read(self) -> State:
        """Return the pointer; that of a new device if neither copy is valid."""
        try:
            return State.from_json(self._state.read() or {})
        except (TypeError, ValueError):
            return State()

    def mark(self) -> tuple[int, int]:
        """Return a value that changes with the pointer, at the cost of one ``stat``."""
        try:
            status = self._file.stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def change(self, how: Callable[[State], State]) -> State:
        """Replace the pointer with the result of ``how`` and return it. Raises NoSpace."""
        with files.locked(self.folder / "state.lock", wait=True):
            old = self.read()
            new = how(old)
            if new != old or not (new == State() or self._state.is_whole()):
                self._state.write(asdict(new))
            return new

    def settings(self) -> DeviceSettings | None:
        """Return the last given settings, or None."""
        found = self._settings.read() or {}
        known = {it.name: found[it.name] for it in fields(DeviceSettings) if it.name in found}
        try:
            settings = DeviceSettings(**known)
        except TypeError:
            return None
        return settings if all(isinstance(it, str) for it in known.values()) else None

    def remember(self, settings: DeviceSettings) -> None:
        """Save the settings, for commands that are given fewer options."""
        with files.locked(self.folder / "state.lock", wait=True):
            if settings != self.settings() or not self._settings.is_whole():
                self._settings.write(asdict(settings))

    def needs_settings(self) -> DeviceSettings:
        """Return the settings. Raises AgentConfigError if there are none."""
        settings = self.settings()
        if settings is None:
            raise AgentConfigError(
                "this device has no settings, or has lost them; run fourways-agent update with"
                " --gateway, --deployment, --target and --key"
            )
        return settings

    def newest(self) -> Documents | None:
        """Return the documents of the newest verified release, without verifying them again."""
        try:
            return Documents.decode(self._newest.read_bytes())
        except (OSError, MalformedBundle):
            return None

    def keep_newest(self, documents: Documents) -> None:
        """Save the documents of the newest verified release: they prove its sequence."""
        if self.newest() != documents:
            files.write(self._newest, documents.encode())

    def forget(self) -> None:
        """Delete everything, as if this device were new. Raises NoSpace."""
        with files.disk():
            for name in ("slots", "incoming", "newest.json", "crash.txt", "features.sqlite"):
                files.delete(self.folder / name)
            self._state.delete()
            self._settings.delete()
            SealedDocument(self.folder / "records.json").delete()
