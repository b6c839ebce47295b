"""The download itself: verified while it streams, visible only when complete.

This module defines the order: policy, existing files, the lock, the attempts, the size limit, the
digest, the final name. It knows nothing about any scheme.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.errors import DigestMismatch, FetchRefused

from .credentials import Credentials
from .location import Location, check_scheme
from .part import PartialDownload, digest_of, final_path, locked_part, private_folder
from .retry import Sleep, retried
from .source import ByteSource, Clock, Deadline, Interrupted
from .sources import source_of


@dataclass(frozen=True, slots=True)
class Fetched:
    """A local file: read-only, verified, named after its content."""

    path: Path
    digest: str
    """sha256 of the file, as ``sha256:HEX``."""

    size: int
    """Bytes."""


def fetch(
    uri: str,
    *,
    into: Path,
    digest: str | None,
    max_bytes: int,
    policy: FetchPolicy,
    paths: Paths,
    credentials: Path | None = None,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Fetched:
    """Download the file at ``uri`` into the folder ``into``, which becomes private to us (0700).

    An existing file with this ``digest`` is hashed again and used. Without a digest the file is
    accepted as it is, and the caller should pin the digest returned. ``credentials`` is the folder
    of a mounted Secret, read again at each call.

    Raises FetchRefused (policy, size, links), SourceError (does not exist, no access),
    DigestMismatch, ConfigError (a missing extra, an incomplete Secret), SecretRefused and
    FetchFailed (worth a retry: the network, the time, our disk). No message contains a remote
    body, a query or a secret.
    """
    location = Location.parse(uri)
    check_scheme(location, policy)
    deadline = Deadline(policy.timeout_seconds, clock)
    private_folder(into)
    if digest is not None and (found := _present(into, digest, max_bytes)) is not None:
        return found
    source = source_of(location, paths, Credentials.read(credentials, paths), policy, digest)
    with locked_part(into, uri, deadline, sleep) as part:
        if digest is not None and (found := _present(into, digest, max_bytes)) is not None:
            part.discard()
            return found

        def attempt() -> Fetched:
            return _download(source, part, into, digest, max_bytes, location, deadline)

        return retried(attempt, deadline, sleep)


def _present(into: Path, digest: str, max_bytes: int) -> Fetched | None:
    path = final_path(into, digest)
    try:
        size = path.lstat().st_size
    except OSError:
        return None
    if digest_of(path) != digest:
        path.unlink(missing_ok=True)
        return None
    if size > max_bytes:
        raise FetchRefused(f"the file is {size} bytes; {max_bytes} are allowed")
    return Fetched(path, digest, size)


def _download(
    source: ByteSource,
    part: PartialDownload,
    into: Path,
    digest: str | None,
    max_bytes: int,
    location: Location,
    deadline: Deadline,
) -> Fetched:
    tag = part.resume()
    if digest is not None and part.size and part.digest == digest:
        return Fetched(part.publish(into), digest, part.size)
    with source.open(part.size, tag, deadline) as body:
        resumed = body.start > 0
        if not resumed:
            part.restart(body.validator)
        try:
            _check_size(body.total or 0, max_bytes, location)
            for chunk in body.chunks:
                deadline.remaining()
                _check_size(part.size + len(chunk), max_bytes, location)
                part.write(chunk)
        except FetchRefused:
            part.discard()
            raise
        if body.total is not None and part.size != body.total:
            raise Interrupted(f"{location.shown}: {part.size} of {body.total} bytes were received")
    _verify(part, digest or body.digest, location, resumed=resumed)
    return Fetched(part.publish(into), part.digest, part.size)


def _check_size(size: int, max_bytes: int, location: Location) -> None:
    if size > max_bytes:
        raise FetchRefused(f"{location.shown}: larger than the {max_bytes} bytes allowed")


def _verify(
    part: PartialDownload, digest: str | None, location: Location, *, resumed: bool
) -> None:
    if digest is None or part.digest == digest:
        return
    got = part.digest
    part.restart(None)
    if resumed:
        # A partial file that survived a crash may be torn: only a whole download is conclusive.
        raise Interrupted(f"{location.shown}: the resumed download is damaged")
    part.discard()
    raise DigestMismatch(f"{location.shown}: the file is {got}, not {digest}")
