"""A pending response: only the part of a future that a connection needs.

The waiting callback is called at once, in the same call, instead of in the event loop's next
iteration; that delay, and the other features of a future, cost more than writing the response. Not
thread-safe. Never cancelled: if the client leaves, ``abandoned`` is set, and the producer may drop
the work; it must settle the promise all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any

from .message import Response

logger = logging.getLogger("fourways.http")

Tell = Callable[[Response | None, Exception | None], object]
"""Called with the response or with the exception."""


class Promise:
    """A pending response or exception."""

    __slots__ = ("_error", "_response", "_tell", "abandoned", "half_closed")

    def __init__(self) -> None:
        self.abandoned = False
        """The client has left: the response is no longer needed."""

        self.half_closed = False
        """The client has closed its sending half: it may still read, or has left."""

        self._response: Response | None = None
        self._error: Exception | None = None
        self._tell: Tell | None = None

    def done(self) -> bool:
        """Return whether it is settled."""
        return self._response is not None or self._error is not None

    def set_result(self, response: Response) -> None:
        """Settle with a response. Does nothing if it is already settled."""
        if self._response is None and self._error is None:
            self._response = response
            self._settle()

    def set_exception(self, error: Exception) -> None:
        """Settle with an exception. Does nothing if it is already settled."""
        if not self.done():
            self._error = error
            self._settle()

    def then(self, tell: Tell) -> None:
        """Call ``tell`` when settled, or now if already settled. Supports one callback only."""
        self._tell = tell
        if self.done():
            self._settle()

    def _settle(self) -> None:
        if self._tell is not None:
            try:
                self._tell(self._response, self._error)
            except Exception:
                logger.exception("a response was not delivered")

    def __await__(self) -> Generator[Any, None, Response]:
        """Wait as for a future."""
        if not self.done():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._tell = lambda *_: None if future.done() else future.set_result(None)
            yield from future
        if self._error is not None:
            raise self._error
        assert self._response is not None, "settled above"  # noqa: S101
        return self._response
