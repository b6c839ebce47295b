"""From requests to events: publishes the events of a stream's requests, each one once.

Owns the connection to the stream's broker and the limit of events in progress; ``accepted`` knows
which events a request already became.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import TYPE_CHECKING

from fourways_api import Route
from fourways_http import HttpError, Request
from fourways_runtime.errors import EventTooLarge, WorkloadError
from fourways_runtime.io.store.streams.stream import ID_HEADER, QUESTION_HEADER, EventPosition
from fourways_runtime.scoring.columns import Key
from fourways_runtime.tracing import event_headers

from .accepted import Accepted, PublishedEvent
from .mode import RETRY
from .questions import question_of

if TYPE_CHECKING:
    from ..streaming import Publisher
    from .events import IdempotencyKey

logger = logging.getLogger("fourways.gateway.stream")

PUBLISH_SECONDS = 5.0
MAX_PUBLISHING = 256
"""Maximum events of one stream being published at the same time."""

OpenPublisher = Callable[[Route], "Publisher"]


class EventPublishing:
    """Publishes the events of one deployment, on the running event loop."""

    def __init__(self, route: Route, accepted: Accepted, open_publisher: OpenPublisher) -> None:
        from . import events  # noqa: F401  (heavy: better now than while requests wait)

        self._route = route
        self._name = route.deployment
        self._accepted = accepted
        self._open_publisher = open_publisher
        self._publisher: Publisher | None = None
        self._publishing = asyncio.Semaphore(MAX_PUBLISHING)

    async def connect(self) -> None:
        """Connect to the broker, so that the first request does not wait for the connection."""
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._opened().connect()
        except (WorkloadError, TimeoutError) as error:
            logger.warning("the broker: %s", error, extra={"deployment": self._name})

    async def close(self) -> None:
        """Close the connection."""
        if self._publisher is not None:
            await self._publisher.close()

    async def publish(
        self, request: Request, events: Mapping[Key, bytes], keys: Sequence[Key]
    ) -> dict[Key, PublishedEvent]:
        """Publish the events of these keys, unless published before; return the known events.

        Without ``events``, return those of earlier requests. Raises HttpError: 413 for an event
        that is too large, 422 for an idempotency key of another request, 503 if the broker fails.
        """
        if not events:
            known = {key: self._accepted.newest(key) for key in keys}
            return {key: event for key, event in known.items() if event is not None}
        from .events import idempotency_key

        given = idempotency_key(request)
        if given is not None:
            self._accepted.bind((given.caller, given.text), given.payload)
        outcomes = await asyncio.gather(
            *(self._once(key, events[key], given) for key in keys), return_exceptions=True
        )
        published = {}
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            published[key] = outcome
        return published

    async def _once(self, key: Key, event: bytes, given: IdempotencyKey | None) -> PublishedEvent:
        from .events import made_id

        same = made_id(self._name, event, key=given)
        # A broker drops recent duplicates. It must not drop a repetition after the freshness ends.
        epoch = int(time() / self._route.freshness_seconds)
        identity = made_id(self._name, event, epoch) if given is None else same
        question = question_of(event)
        own = {ID_HEADER: identity.encode(), QUESTION_HEADER: question.hex().encode()}
        headers = {**event_headers(), **own}
        return await self._accepted.once(
            same, identity, key, question, lambda: self._send(str(key).encode(), event, headers)
        )

    async def _send(
        self, key: bytes, event: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        try:
            async with self._publishing, asyncio.timeout(PUBLISH_SECONDS):
                return await self._opened().publish(key, event, headers)
        except EventTooLarge as error:
            raise HttpError(413, str(error)) from None
        except (WorkloadError, TimeoutError) as error:
            # The reason may contain an address, so it only goes to the log.
            reason = error.reason if isinstance(error, WorkloadError) else "TimeoutError"
            logger.warning(
                "an event was not published: %s",
                error,
                extra={"deployment": self._name, "reason": reason},
            )
            raise HttpError(503, "the broker does not accept events now", RETRY) from None

    def _opened(self) -> Publisher:
        if self._publisher is None:
            self._publisher = self._open_publisher(self._route)
        return self._publisher
