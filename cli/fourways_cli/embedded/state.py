"""The state folder: its lock, and the paths of pods' mounts and of the host's own files.

::

    lock control            the lock of the host that holds it, and its socket
    store/uri store.db      the prediction store's address, and the store
    volumes/CLAIM           a claim: a link to a folder
    secrets/NAME            a Secret: a link to a folder with one file per key
    bundles/CLAIM keys/NAME claims and keys that were not given, created here
    cache runs logs nats    models, termination messages, logs, the broker's streams
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fourways_api import Paths

BROKER_SECRET = "fourways-host-broker"  # noqa: S105
"""Name of the Secret with the login of the host's own broker."""


class HostBusy(RuntimeError):
    """Another host holds the state folder."""


class StateNotPrivate(RuntimeError):
    """The state folder belongs to another user; the text says what to do."""


def local_paths(state: Path) -> Paths:
    """Return where this host keeps the files that a pod would have mounted."""
    return Paths(
        store_uri_file=str(state / "store" / "uri"),
        volumes_root=str(state / "volumes"),
        secrets_root=str(state / "secrets"),
        cache_dir=str(state / "cache"),
        termination_log=str(state / "last-words.json"),
    )


@contextmanager
def held(state: Path) -> Iterator[None]:
    """Hold the lock of a state folder for one host. Raises HostBusy or StateNotPrivate.

    The folder holds keys, predictions and the control socket, so only its owner may enter it.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = state.stat()
    if status.st_uid != os.geteuid():
        raise StateNotPrivate(f"{state} belongs to another user: choose another --state")
    if status.st_mode & 0o077:
        state.chmod(0o700)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"another `fourways up` uses {state}: stop it, or choose another --state"
            raise HostBusy(message) from None
        yield


def lay_out(state: Path, volumes: Mapping[str, Path], secrets: Mapping[str, Path]) -> None:
    """Create missing folders, and link claims and Secrets to their folders.

    Existing files are not written again: workers may be reading them.
    """
    for folder in ("logs", "runs", "store", "cache", "volumes", "secrets"):
        (state / folder).mkdir(exist_ok=True, mode=0o700)
    uri = f"sqlite:///{(state / 'store.db').absolute()}"
    file = state / "store" / "uri"
    if not file.is_file() or file.read_text() != uri:
        file.write_text(uri)
    for kind, places in (("volumes", volumes), ("secrets", secrets)):
        for name, target in places.items():
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            link = state / kind / name
            if link.is_symlink() and link.readlink() == target.resolve():
                continue
            link.unlink(missing_ok=True)
            link.symlink_to(target.resolve(), target_is_directory=True)
