"""The interface of an output folder, for sinks and publishers, and its errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from fourways_runtime.errors import (
    ConfigError,
    FetchFailed,
    FetchRefused,
    PublishFailed,
    SinkUnavailable,
    SourceError,
    StoreFull,
    WorkloadError,
)

from ..fetch.objects import login_fault

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class FolderErrors:
    """The errors a folder raises when a write fails, and how messages and other users see it."""

    unavailable: type[WorkloadError]
    full: type[WorkloadError]
    denied: type[WorkloadError]
    link: type[WorkloadError]

    @contextmanager
    def translated(self, shown: str, secret: str = "") -> Iterator[None]:
        """Translate write errors into these, without the backend's texts, which quote bodies.

        ``secret`` is the name of the Secret with the folder's credentials.
        """
        try:
            yield
        except (SourceError, FetchFailed) as error:
            raise self.unavailable(str(error)) from None
        except WorkloadError:
            raise
        except OSError as error:
            if (fault := login_fault(error, secret)) is not None:
                raise self.unavailable(f"{shown}: {fault}") from None
            said = (os.strerror(error.errno) if error.errno else type(error).__name__).lower()
            if error.errno in _FULL:
                raise self.full(f"{shown}: {said}") from None
            if error.errno in _DENIED or isinstance(error, PermissionError):
                whose = f" to the login in the Secret {secret}" if secret else ""
                raise self.denied(f"{shown}: writing is not allowed{whose} ({said})") from None
            if error.errno == errno.ELOOP:
                text = f"{shown}: a component of the path is a link; write the real path"
                raise self.link(text) from None
            raise self.unavailable(f"{shown}: {said}") from None
        except Exception as error:  # noqa: BLE001  (each backend has a tree of its own)
            if (fault := login_fault(error, secret)) is not None:
                raise self.unavailable(f"{shown}: {fault}") from None
            text = f"{shown}: writing failed ({type(error).__name__})"
            raise self.unavailable(text) from None


SINK_ERRORS = FolderErrors(SinkUnavailable, StoreFull, ConfigError, FetchRefused)
PUBLISH_ERRORS = FolderErrors(PublishFailed, PublishFailed, PublishFailed, PublishFailed)


class OutputFolder(Protocol):
    """A folder. Names are relative to it, with ``/`` between components.

    Every call may raise what the folder's :class:`FolderErrors` name.
    """

    shown: str
    """Its URI, for messages; never a credential."""

    @property
    def backend(self) -> Any:
        """An fsspec filesystem that reads here."""
        ...

    path: str
    """The folder's path in it."""

    def translated(self) -> AbstractContextManager[None]:
        """Translate errors of reads and writes into the folder's errors."""
        ...

    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a new file for writing; it exists, complete and durable, once the context ends."""
        ...

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Write a small file; with ``new``, return False and change nothing if it exists."""
        ...

    def put_file(self, name: str, file: Path) -> None:
        """Make ``name`` a copy of a local file, completely or not at all."""
        ...

    def get(self, name: str, most: int | None = None) -> bytes | None:
        """Return a file's content; None if it does not exist or is larger than ``most`` bytes."""
        ...

    def part(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes of a file from ``start`` to ``end``."""
        ...

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if it does not exist."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of a folder's files; empty if the folder does not exist."""
        ...

    def move(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Move files (from, to); a file that is already at its target is skipped."""
        ...

    def rename(self, folder: str, to: str) -> None:
        """Rename a folder, atomically if the storage supports it."""
        ...

    def remove(self, folder: str) -> None:
        """Remove a folder and its files, if it exists."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        ...
