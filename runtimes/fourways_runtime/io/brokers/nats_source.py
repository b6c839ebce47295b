"""Events from a NATS JetStream stream: one partition, whose positions are the stream's sequence.

The consumer acknowledges nothing, and the server forgets it when we are gone: the store says where
to start. What is delivered to it is numbered without gaps; where a number is missing (a connection
broke, the server was away) a new consumer starts at what came last. One worker of a stream leads
and the others stand by.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from fourways_api import Paths
from fourways_api.modes import NatsSource
from fourways_runtime.errors import TopicNotFound

from .nats_client import KEY_HEADER, connect, key_bytes, stream_info, unavailable
from .source import OUTAGE_SECONDS, Events, Headers, PartitionListener

_ASK_SECONDS = 5.0
_STAND_BY_SECONDS = 0.5
_QUIET_SECONDS = 5.0
"""After this long without an event the server is asked whether it still knows our consumer."""

_GONE = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)
T = TypeVar("T")
_log = logging.getLogger("fourways.nats")


class NatsEvents:
    """A stream, read by one worker at a time; see :class:`.source.EventSource`."""

    identity = ""

    def __init__(self, source: NatsSource, paths: Paths) -> None:
        self._source = source
        self._paths = paths
        self._loop = asyncio.new_event_loop()
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._leading = False
        self._next = 0
        self._number = 0
        """Of the last event delivered to our consumer."""

        self._newest = 0
        self._heard = 0.0
        self._away: float | None = None
        threading.Thread(target=self._loop.run_forever, name="nats", daemon=True).start()

    def open(self, seconds: float) -> None:
        """Connect and look the stream up."""
        if self._client is None:
            self._client = self._wait(connect(self._source, self._paths, seconds))
        info = self._wait(stream_info(self._client, self._source, seconds))
        self._jetstream = self._client.jetstream(timeout=_ASK_SECONDS)
        source = self._source
        self.identity = f"nats/{source.stream}/{source.subject}/{info.created}"

    def start(self, listener: PartitionListener) -> None:
        """Stand by."""
        self._listener = listener

    def first(self, partition: int) -> int:
        """Return the first position of any stream; what is older than the oldest is passed over."""
        return 1

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        """Wait for events."""
        if not self._leading:
            if not self._listener.leads():
                sleep(_STAND_BY_SECONDS)
                return None
            self._next = self._listener.assigned([0])[0]
            self._leading = True
        try:
            messages = self._wait(self._fetched(most, wait, gather))
        except _GONE as error:
            self._lost(error)
            return None
        self._away = None
        return _events(messages) if messages else None

    def idle(self, seconds: float) -> None:
        """Let time pass: a pull consumer is given nothing it did not ask for."""
        sleep(seconds)

    def held(self) -> Sequence[int]:
        """Return the one partition, where this worker leads."""
        return [0] if self._leading else []

    def seek(self, positions: Mapping[int, int]) -> None:
        """Go on from this position, if we still lead."""
        self._subscription = None
        if 0 in positions:
            self._next = positions[0]
            self._leading = self._listener.leads()
            if not self._leading:
                self._listener.revoked([0])

    def passed(self, positions: Mapping[int, int]) -> None:
        """Nothing: the consumer acknowledges nothing."""

    def lag(self) -> Mapping[int, int]:
        """Return the newest position known."""
        return {0: self._newest} if self._leading else {}

    def available(self) -> bool:
        """Tell whether a server answers."""
        return self._away is None and self._client is not None and self._client.is_connected

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            with suppress(*_GONE):
                self._wait(asyncio.wait_for(self._client.close(), 2))
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _fetched(self, most: int, wait: float, gather: float) -> list[Msg]:
        subscription = self._subscription or await self._subscribed()
        messages: list[Msg] = []
        try:
            if wait:
                messages = await subscription.fetch(1, wait)
            if most > len(messages):
                messages += await subscription.fetch(most - len(messages), max(gather, 0.001))
        except TimeoutError:
            pass
        good = []
        for message in messages:
            told = message.metadata
            if told.sequence.consumer != self._number + 1:
                self._subscription = None  # Something was lost on the way: begin anew after these.
                break
            self._number += 1
            self._next = told.sequence.stream + 1
            self._newest = self._next + told.num_pending
            good.append(message)
        if good:
            self._heard = monotonic()
        elif monotonic() - self._heard > _QUIET_SECONDS:
            self._heard = monotonic()
            await subscription.consumer_info()
        return good

    async def _subscribed(self) -> JetStreamContext.PullSubscription:
        assert self._jetstream is not None  # noqa: S101
        made = await self._jetstream.add_consumer(
            self._source.stream,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=max(1, self._next),
                ack_policy=AckPolicy.NONE,
                filter_subject=self._source.subject,
                inactive_threshold=30.0,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        self._number = 0
        self._heard = monotonic()
        self._subscription = await self._jetstream.pull_subscribe_bind(
            consumer=made.name, stream=self._source.stream
        )
        return self._subscription

    def _lost(self, error: BaseException) -> None:
        """Begin anew with the next poll; end where the server stays away or the stream is gone."""
        self._subscription = None
        now = monotonic()
        if self._away is None:
            self._away = now
            _log.warning("NATS: %s", str(error) or type(error).__name__)
        if isinstance(error, nats.js.errors.NotFoundError) and self._client is not None:
            # Our consumer, or the stream.
            try:
                self._wait(stream_info(self._client, self._source, _ASK_SECONDS))
            except TopicNotFound:
                raise
            except Exception as again:  # noqa: BLE001  (the server is away: that is known)
                _log.info("NATS: %s", again)
        if now - self._away > OUTAGE_SECONDS:
            raise unavailable(self._source, error)
        sleep(_STAND_BY_SECONDS)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()


def _events(messages: list[Msg]) -> Events:
    return Events(
        [0] * len(messages),
        [message.metadata.sequence.stream for message in messages],
        [key_bytes((message.headers or {}).get(KEY_HEADER)) for message in messages],
        [message.data for message in messages],
        lambda at: _headers(messages[at]),
    )


def _headers(message: Msg) -> Headers:
    return tuple((name, value.encode()) for name, value in (message.headers or {}).items())
