"""An answer to come: as much of a future as a connection asks of one.

Whoever waits is told at once, in the same call, instead of in the event loop's next turn; that, and
what a future carries besides, costs more than writing the answer. Not for threads. Never cancelled:
where the client leaves, ``abandoned`` says so, and whoever is to keep the promise may drop it; it
has to be settled all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any

from .message import Response

logger = logging.getLogger("fourways.http")

Tell = Callable[[Response | None, Exception | None], object]
"""Told the response, or the exception there is instead."""


class Promise:
    """A response, or the exception there is instead."""

    __slots__ = ("_error", "_response", "_tell", "abandoned", "half_closed")

    def __init__(self) -> None:
        self.abandoned = False
        """The client has left: nobody waits."""

        self.half_closed = False
        """The client sends no more. It may still read; or it has left, which looks the same."""

        self._response: Response | None = None
        self._error: Exception | None = None
        self._tell: Tell | None = None

    def done(self) -> bool:
        """Tell whether it was kept."""
        return self._response is not None or self._error is not None

    def set_result(self, response: Response) -> None:
        """Keep it. What was settled before stands."""
        if self._response is None and self._error is None:
            self._response = response
            self._settle()

    def set_exception(self, error: Exception) -> None:
        """Break it. What was settled before stands."""
        if not self.done():
            self._error = error
            self._settle()

    def then(self, tell: Tell) -> None:
        """Call when it is settled, now where it is. There is one who waits."""
        self._tell = tell
        if self.done():
            self._settle()

    def _settle(self) -> None:
        if self._tell is not None:
            try:
                self._tell(self._response, self._error)
            except Exception:
                logger.exception("an answer was not delivered")

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
