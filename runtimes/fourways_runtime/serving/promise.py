"""An answer to come: as much of a future as a connection asks of one.

Whoever waits is told at once, in the same call, instead of in the event loop's next turn; that, and
what a future carries besides, costs more than writing the answer. Never cancelled. Not for threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any

from ..http import Response

logger = logging.getLogger("fourways.serving")


class Promise:
    """A response, or the exception there is instead."""

    __slots__ = ("_error", "_response", "_tell")

    def __init__(self) -> None:
        self._response: Response | None = None
        self._error: Exception | None = None
        self._tell: Callable[[Any], object] | None = None

    def done(self) -> bool:
        """Tell whether it was kept."""
        return self._response is not None or self._error is not None

    def cancelled(self) -> bool:
        """Tell that it was not cancelled."""
        return False

    def result(self) -> Response:
        """Return the response, or raise the exception."""
        if self._error is not None:
            raise self._error
        if self._response is None:
            raise asyncio.InvalidStateError
        return self._response

    def exception(self) -> Exception | None:
        """Return the exception, None where there is none."""
        return self._error

    def set_result(self, response: Response) -> None:
        """Keep it. What was settled before stands."""
        if not self.done():
            self._response = response
            self._settle()

    def set_exception(self, error: Exception) -> None:
        """Say why it cannot be kept. What was settled before stands."""
        if not self.done():
            self._error = error
            self._settle()

    def add_done_callback(self, tell: Callable[[Any], object]) -> None:
        """Call when it is settled, now where it is. There is one who waits."""
        self._tell = tell
        if self.done():
            self._settle()

    def _settle(self) -> None:
        if self._tell is not None:
            try:
                self._tell(self)
            except Exception:
                logger.exception("an answer was not delivered")

    def __await__(self) -> Generator[Any, None, Response]:
        """Wait as for a future."""
        if not self.done():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._tell = lambda _: None if future.done() else future.set_result(None)
            yield from future
        return self.result()
