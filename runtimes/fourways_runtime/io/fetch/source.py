"""What every scheme gives the transfer: bytes from an offset on, and the time left to get them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from fourways_runtime.errors import FetchFailed

Clock = Callable[[], float]
"""Monotonic seconds."""


class Interrupted(FetchFailed):
    """A failure that another try at once may mend: a broken connection, a 5xx, a short body."""


class Deadline:
    """The time one fetch may take in all, however its bytes drip in."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        """Seconds left. Raises FetchFailed when there are none."""
        left = self._end - self._clock()
        if left <= 0:
            raise FetchFailed(f"the download took longer than {self._seconds:g} s")
        return left


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file from ``start`` on.

    ``total`` is the size the other side claims for the whole file, None where it does not say.
    ``validator`` is a strong tag of the file's version: only with it a download is continued.
    ``digest`` is the sha256 the other side has bound itself to, where it has.
    """

    start: int
    total: int | None
    validator: str | None
    chunks: Iterator[bytes]
    digest: str | None = None


class ByteSource(Protocol):
    """Where the bytes of one file come from."""

    def open(
        self, offset: int, validator: str | None, deadline: Deadline
    ) -> AbstractContextManager[Body]:
        """Open the file at ``offset``, or at 0 if it is no longer the version of ``validator``.

        Raises SourceError for what is not there, FetchRefused for what is not allowed,
        Interrupted for what may pass.
        """
        ...
