"""The private folder for downloads, and the partial file on its way there.

A file gets its final, content-addressed name only once it is complete, verified and on disk. Until
then it is a ``.part`` held under a lock, so that two workers that share the folder never write to
the same file; its ``.tag`` names the version of its bytes, without which they are useless.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fourways_runtime.errors import ConfigError, FetchFailed

from .retry import Sleep
from .source import Deadline

_CHUNK = 1 << 20
_LOCK_POLL_SECONDS = 0.1
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def disk_errors() -> Iterator[None]:
    """Translate a failure of our own disk into FetchFailed: another pod or more space may help."""
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno).lower() if error.errno else "failed"
        raise FetchFailed(f"the download folder cannot be written: {said}") from None


def private_folder(into: Path) -> None:
    """Make a folder that only we can enter. Raises ConfigError for a folder with another owner."""
    with disk_errors():
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = into.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ConfigError(
                f"{into} belongs to another user; name a folder in it that can be created"
            )
        if status.st_mode & 0o077:
            into.chmod(0o700)


def digest_of(path: Path) -> str | None:
    """Return the sha256 of a regular file as ``sha256:HEX``; None if there is no such file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def final_path(into: Path, digest: str) -> Path:
    """Return the path in the folder of a file with this digest."""
    return into / digest.replace(":", "-")


class PartialDownload:
    """A file being downloaded. Made by :func:`locked_part`."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._tag = path.with_suffix(".tag")
        self._handle = handle
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes written so far."""

        self.resumable = False
        """Whether the bytes written are of a known version, and worth keeping."""

    @property
    def digest(self) -> str:
        """sha256 of the bytes written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def resume(self) -> str | None:
        """Continue with the bytes of an earlier attempt; return their version's tag, or None."""
        try:
            tag = self._tag.read_text()
        except (OSError, UnicodeDecodeError):
            self.restart(None)
            return None
        with disk_errors():
            self._hash = hashlib.sha256()
            self.size = os.lseek(self._handle, 0, os.SEEK_SET)
            while chunk := os.read(self._handle, _CHUNK):
                self._hash.update(chunk)
                self.size += len(chunk)
        self.resumable = bool(tag)
        return tag or None

    def restart(self, tag: str | None) -> None:
        """Start again with the version of ``tag``; None if its version has no tag."""
        with disk_errors():
            self._tag.unlink(missing_ok=True)
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            if tag is not None:
                self._tag.write_text(tag)
        self._hash = hashlib.sha256()
        self.size = 0
        self.resumable = tag is not None

    def write(self, chunk: bytes) -> None:
        """Append bytes. A full disk raises FetchFailed, and nothing is kept."""
        left = memoryview(chunk)
        try:
            with disk_errors():
                while left:
                    left = left[os.write(self._handle, left) :]
        except FetchFailed:
            self.resumable = False
            raise
        self._hash.update(chunk)
        self.size += len(chunk)

    def publish(self, into: Path) -> Path:
        """Give the file its final name, once it is on disk. Return its path."""
        final = final_path(into, self.digest)
        with disk_errors():
            os.fchmod(self._handle, 0o400)
            os.fsync(self._handle)
            self._path.rename(final)
            self._tag.unlink(missing_ok=True)
            folder = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return final

    def discard(self) -> None:
        """Delete the partial file and its tag."""
        self.resumable = False
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._tag.unlink(missing_ok=True)


@contextmanager
def locked_part(
    into: Path, uri: str, deadline: Deadline, sleep: Sleep
) -> Iterator[PartialDownload]:
    """Hold the part of a URI, after any other worker. A part that cannot be resumed is deleted."""
    path = into / f"{hashlib.sha256(uri.encode()).hexdigest()[:32]}.part"
    with disk_errors():
        handle = _lock(path, deadline, sleep)
    part = PartialDownload(path, handle)
    try:
        yield part
    except BaseException:
        if not part.resumable:
            part.discard()
        raise
    finally:
        os.close(handle)


def _lock(path: Path, deadline: Deadline, sleep: Sleep) -> int:
    while True:
        handle = os.open(path, _FLAGS, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have published or removed the file since we opened it.
            if os.fstat(handle).st_nlink and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT):
                os.close(handle)
                raise
            sleep(min(_LOCK_POLL_SECONDS, deadline.remaining()))
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
