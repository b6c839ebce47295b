"""Credentials from a mounted Secret: a folder with one file per key.

They are read for each fetch and never kept: the kubelet replaces the files when the Secret rotates.
"""

from __future__ import annotations

from pathlib import Path

from fourways_api import Paths
from fourways_runtime.errors import ConfigError, Unavailable
from fourways_runtime.mounted import FileState, state_of

from ..mounted_secret import MountedSecret

_MAX_BYTES = 1 << 20


def secret_state(folder: Path | None) -> tuple[FileState, ...]:
    """Return what changes when a mounted Secret is rotated; empty if there is none."""
    if folder is None:
        return ()
    try:
        return state_of(file for file in folder.iterdir() if file.is_file())
    except OSError:
        return ()  # It is being replaced, or gone: whoever reads it says so.


class SecretWatch:
    """Tells whether a mounted Secret was rotated since it was last asked."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._state = secret_state(folder)

    def rotated(self) -> bool:
        """Tell whether the files differ from those of the last call; False while they are away."""
        found = secret_state(self._folder)
        if found in (self._state, ()):
            return False
        self._state = found
        return True


class Credentials:
    """The keys of one Secret. Its representation shows the keys and never the values."""

    def __init__(self, values: dict[str, str], secret: MountedSecret | None = None) -> None:
        self._values = values
        self._secret = secret

    @classmethod
    def read(cls, folder: Path | None, paths: Paths) -> Credentials:
        """Read a mounted Secret for the deployment of ``paths``, or nothing for None.

        Raises:
            Unavailable: it is missing.
            SecretRefused: it does not list the deployment.

        """
        if folder is None:
            return cls({})
        secret = MountedSecret(folder, paths.deployment)
        secret.for_deployment()
        try:
            values = {key: _text(folder / key) for key in secret.names()}
        except OSError:
            raise Unavailable(f"the credentials folder {folder.name} cannot be read") from None
        return cls(values, secret)

    @property
    def secret_name(self) -> str:
        """Name of the Secret; empty without one."""
        return "" if self._secret is None else self._secret.name

    def check_host(self, host: str, port: int | None = None) -> None:
        """Refuse to be sent to a host that the manifest chose and the Secret does not list.

        Raises:
            SecretRefused: the Secret does not list it.

        """
        if self._secret is not None:
            self._secret.for_host(host, port)

    def get(self, key: str) -> str | None:
        """Return the value of a key; None if the Secret does not have it or it is empty."""
        return self._values.get(key) or None

    def pair(self, first: str, second: str) -> tuple[str, str] | None:
        """Return a pair of keys; None without both. Raises ConfigError if only one is there."""
        one, other = self.get(first), self.get(second)
        if one is not None and other is not None:
            return one, other
        if one is not None or other is not None:
            raise ConfigError(f"the credentials Secret needs both {first} and {second}")
        return None

    def require_any(self, *keys: str) -> None:
        """Raise ConfigError if a Secret is mounted but contains none of ``keys``."""
        if self._values and not any(self.get(key) for key in keys):
            raise ConfigError(f"the credentials Secret has none of the keys {', '.join(keys)}")

    def __bool__(self) -> bool:
        return bool(self._values)

    def __repr__(self) -> str:
        return f"Credentials(keys={sorted(self._values)})"


def _text(file: Path) -> str:
    with file.open("rb") as handle:
        raw = handle.read(_MAX_BYTES + 1)
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError
        return raw.decode().strip()
    except ValueError:
        raise ConfigError(
            f"the credentials key {file.name} is not UTF-8 text of a plausible length"
        ) from None
