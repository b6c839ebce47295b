"""The interface of a scheme for the transfer: bytes from an offset, and the remaining time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from fourways_runtime.errors import FetchFailed

Clock = Callable[[], float]
"""Monotonic seconds."""


class Interrupted(FetchFailed):
    """A failure that an immediate retry may resolve: a broken connection, a 5xx, a short body."""


class Deadline:
    """The total time of one fetch, however slowly its bytes arrive."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        """Return the seconds left. Raises FetchFailed if there are none."""
        left = self._end - self._clock()
        if left <= 0:
            raise FetchFailed(f"the download took longer than {self._seconds:g} s")
        return left


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file from ``start`` on.

    ``total`` is the size of the whole file as the remote side reports it, or None. ``validator`` is
    a strong tag of the file's version: a download is resumed only if there is one. ``digest`` is
    the sha256 that the remote side has committed to, if any.
    """

    start: int
    total: int | None
    validator: str | None
    chunks: Iterator[bytes]
    digest: str | None = None


class ByteSource(Protocol):
    """A source of the bytes of one file."""

    def open(
        self, offset: int, validator: str | None, deadline: Deadline
    ) -> AbstractContextManager[Body]:
        """Open the file at ``offset``, or at 0 if it is no longer the version of ``validator``.

        Raises SourceError if it does not exist, FetchRefused if it is not allowed, Interrupted for
        a transient failure.
        """
        ...
