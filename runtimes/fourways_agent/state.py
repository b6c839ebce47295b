"""What a device remembers: which of its two slots answers, and what it must not fetch again.

Owns the state folder and every change of the pointer. The pointer is one small file replaced by a
rename, so at any moment it names one slot, whole. A slot is written only while the pointer names
neither it nor (as what to fall back to) its content.

::

    STATE/state.json       the pointer
    STATE/settings.json    gateway, deployment, target, key: what the agent was last told
    STATE/incoming/        documents of a bundle, until their signature was verified
    STATE/slots/a, b/      signed/{manifest,release}.json, signature.json, files/
    STATE/features.sqlite  extra inputs as the gateway last gave them
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from . import files
from .errors import ConfigError

SLOTS = ("a", "b")
MAX_BOOTS = 3
"""A new model that was started so often without an answer is given up."""

_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class State:
    """The pointer."""

    slot: str | None = None
    """The slot that answers."""

    digest: str | None = None
    """Digest of its model manifest."""

    confirmed: bool = False
    """Whether it has answered since it was switched to."""

    boots: int = 0
    """How often it was started without an answer."""

    previous_slot: str | None = None
    """What to fall back to; None while that slot is written."""

    previous_digest: str | None = None
    sequence: int = -1
    """Highest release accepted: no older one is."""

    accepted: str | None = None
    """Digest of the manifest of that release."""

    bad: tuple[str, ...] = ()
    """Digests of manifests that do not work on this device."""

    def given_up(self, digest: str) -> State:
        """Return the state that remembers a bundle as one that does not work."""
        return replace(self, bad=(*(it for it in self.bad if it != digest), digest)[-_REMEMBERED:])

    def fallen_back(self, *, bad: bool) -> State:
        """Return the state after this slot was given up.

        ``bad``: its bundle does not work here. Else the disk lost it, and it may be fetched again.
        """
        if bad and self.digest is not None and not self.confirmed:
            return self.given_up(self.digest).fallen_back(bad=False)
        return replace(
            self,
            slot=self.previous_slot,
            digest=self.previous_digest,
            confirmed=self.previous_slot is not None,
            boots=0,
            previous_slot=None,
            previous_digest=None,
        )

    def inactive(self) -> str:
        """Return the slot a bundle may be written to."""
        return SLOTS[1] if self.slot == SLOTS[0] else SLOTS[0]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where this device gets its bundles, and whom it trusts."""

    gateway: str
    deployment: str
    target: str
    key: str
    """File with the public key, PEM."""


class Store:
    """The state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.json"
        self._settings = folder / "settings.json"

    def prepare(self) -> None:
        """Make the folder. Raises NoSpace."""
        files.make_folder(self.folder)

    def slot(self, name: str) -> Path:
        """Return a slot's folder."""
        return self.folder / "slots" / name

    def read(self) -> State:
        """Return the pointer; that of a new device where there is none."""
        found = _read(self._file)
        try:
            state = State(**found | {"bad": tuple(found.get("bad", ()))})
        except TypeError:
            return State()
        return state if state.slot in (None, *SLOTS) else State()

    def mark(self) -> tuple[int, int]:
        """Return what changes when the pointer does, at the cost of one ``stat``."""
        try:
            status = self._file.stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def change(self, how: Callable[[State], State]) -> State:
        """Replace the pointer by what ``how`` makes of it; return that. Raises NoSpace."""
        with files.locked(self.folder / "state.lock", wait=True):
            old = self.read()
            new = how(old)
            if new != old:
                files.write(self._file, json.dumps(asdict(new)).encode())
            return new

    def settings(self) -> Settings | None:
        """Return what the agent was last told, None if never."""
        try:
            return Settings(**_read(self._settings))
        except TypeError:
            return None

    def remember(self, settings: Settings) -> None:
        """Keep what the agent was told, for those who are told less."""
        if settings != self.settings():
            files.write(self._settings, json.dumps(asdict(settings)).encode())

    def needs_settings(self) -> Settings:
        """Return the settings. Raises ConfigError where there are none."""
        settings = self.settings()
        if settings is None:
            raise ConfigError("this device was never told --gateway, --deployment, --target, --key")
        return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
