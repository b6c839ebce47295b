"""Events from a NATS JetStream stream: one partition, whose positions are the stream's sequence.

The consumer acknowledges nothing, and the server removes it after we disconnect: the store
determines where to start. Deliveries to it are numbered without gaps; if a number is missing (a
connection broke, the server was unavailable), a new consumer starts after the last event received.
One worker of a stream is the leader and the others stand by; the leader renews its lead every few
seconds.
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
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.client import JetStreamContext

from fourways_api import Paths
from fourways_api.modes import NatsSource
from fourways_runtime.errors import BrokerUnavailable, SourceError, TopicNotFound
from fourways_runtime.retry import Outage

from ..store.streams.stream import QUESTION_HEADER
from .nats_client import (
    FAILURES,
    KEY_HEADER,
    check_retention,
    connect,
    key_bytes,
    stream_info,
    unavailable,
)
from .source import (
    ABSENT_SECONDS,
    OUTAGE_SECONDS,
    Events,
    Headers,
    LogBounds,
    PartitionListener,
    PositionsOutOfRange,
    SourceReplaced,
    question_in,
)

_ASK_SECONDS = 5.0
_CHECK_SECONDS = 2.0
_STAND_BY_SECONDS = 0.5
_LEAD_SECONDS = 5.0
"""Seconds after which the lead is renewed: it ends with the store's connection."""

_CONSUMER_SECONDS = 5 * OUTAGE_SECONDS
"""Seconds without a request after which the server removes our consumer. Nothing is requested while
the store does not answer."""

_QUIET_SECONDS = 5.0
"""Seconds without an event after which the server is asked whether our consumer still exists."""

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
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._consumer = ""
        """Name of our consumer, if there may be one."""

        self._leading = False
        self._led = 0.0
        self._next = 0
        self._number = 0
        """Number of the last event delivered to our consumer."""

        self._late: list[Msg] = []
        """Messages of our subscription that came after the request that they answer had ended."""

        self._heard = 0.0
        self._skipped_to: int | None = None
        """The position that was moved on to since :meth:`read_up_to` was called."""

        self._away: float | None = None
        self._why = ""
        self._found: SourceError | SourceReplaced | None = None
        """The finding of a check, which the next poll raises."""

        self._absent = Outage(ABSENT_SECONDS)
        threading.Thread(target=self._loop.run_forever, name="nats", daemon=True).start()

    def open(self, seconds: float) -> None:
        """Connect and look up the stream."""
        self._wait(self._connected(seconds))
        assert self._client is not None  # noqa: S101
        info = self._wait(stream_info(self._client, self._source, seconds))
        check_retention(self._source, info)
        self.identity = self._identity(info)

    def start(self, listener: PartitionListener) -> None:
        """Stand by."""
        self._listener = listener

    def bounds(self, partition: int) -> LogBounds:
        """Request the range of positions from the server."""
        try:
            self._wait(self._connected(_ASK_SECONDS))
            info = self._info(_ASK_SECONDS)
        except TopicNotFound as error:
            self._note_absence(error)
            raise BrokerUnavailable(str(error)) from None
        if self._identity(info) != self.identity:
            raise self._replaced()
        return LogBounds(max(1, info.state.first_seq), info.state.last_seq + 1)

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        """Wait for events."""
        if self._found is not None:
            raise self._found
        try:
            if not self._leads():
                self._wait(self._connected(_ASK_SECONDS))
                self._away = None
                sleep(_STAND_BY_SECONDS)
                return None
            messages = self._wait(self._fetched(most, wait, gather))
        except (*FAILURES, BrokerUnavailable, TopicNotFound) as error:
            self._lost(error)
            return None
        self._away = None
        return _events(messages) if messages else None

    def read_up_to(self) -> Mapping[int, int]:
        """Return the position that was moved on to since the last call."""
        position, self._skipped_to = self._skipped_to, None
        return {} if position is None else {0: position}

    def idle(self, seconds: float) -> None:
        """Wait: a pull consumer receives only what it requests."""
        sleep(seconds)

    def held(self) -> Sequence[int]:
        """Return the one partition if this worker is the leader."""
        return [0] if self._leading else []

    def seek(self, positions: Mapping[int, int]) -> None:
        """Continue from this position, if we are still the leader."""
        self._subscription = self._skipped_to = None
        if 0 in positions:
            self._next = positions[0]
            self._leading = self._listener.leads()
            if not self._leading:
                self._listener.revoked([0])

    def passed(self, positions: Mapping[int, int]) -> None:
        """Do nothing: the consumer acknowledges nothing."""

    def newest(self) -> Mapping[int, int]:
        """Request the newest position of the subject from the server."""
        if not self._leading:
            return {}
        try:
            return {0: self._wait(asyncio.wait_for(self._last(), _CHECK_SECONDS))}
        except FAILURES as error:
            raise unavailable(self._source, error) from None

    def check(self) -> None:
        """Check that the stream is still the same one and keeps its events."""
        try:
            info = self._info(_CHECK_SECONDS)
            check_retention(self._source, info)
        except TopicNotFound as error:
            self._note_absence(error)
            return
        except SourceError as error:
            self._found = error
            return
        self._absent.ended()
        if self._identity(info) != self.identity:
            self._found = self._replaced()

    def problem(self) -> str:
        """Return the known reason why no events can be read now."""
        connected = self._client is not None and self._client.is_connected
        if self._away is None and self._absent.since is None and connected:
            return ""
        return self._why or f"NATS at {self._source.servers} is disconnected"

    def close(self) -> None:
        """Close the connection."""
        with suppress(*FAILURES):
            self._wait(asyncio.wait_for(self._disconnected(), 2))
        self._loop.call_soon_threadsafe(self._loop.stop)

    # ---- called from the polling thread

    def _leads(self) -> bool:
        now = monotonic()
        if self._leading and now - self._led < _LEAD_SECONDS:
            return True
        leads = self._listener.leads()
        self._led = now
        if leads and not self._leading:
            self._next = self._listener.assigned([0])[0]
        elif self._leading and not leads:
            _log.warning("another worker has taken over; this one stands by")
            self._subscription = None
            self._listener.revoked([0])
        self._leading = leads
        return leads

    def _lost(self, error: Exception) -> None:
        """Start again at the next poll; raise if the server stays away or the stream is gone."""
        self._subscription = None
        now = monotonic()
        if self._client is not None and not self._client.is_connected:
            self._wait(self._disconnected())  # The next poll connects, with the current Secret.
        if isinstance(error, BrokerUnavailable | TopicNotFound):
            known: BrokerUnavailable | TopicNotFound = error
        else:
            known = unavailable(self._source, error)
        self._why = str(known)
        if self._away is None:
            self._away = now
            _log.warning("%s", known)
        if isinstance(known, TopicNotFound):
            self._note_absence(known)
        elif now - self._away > OUTAGE_SECONDS:
            raise known
        sleep(_STAND_BY_SECONDS)

    def _note_absence(self, error: TopicNotFound) -> None:
        """Record that the stream is gone, but allow time for it to be recreated."""
        now = monotonic()
        if self._absent.since is None:
            self._absent.since = now
            self._why = str(error)
            _log.warning("%s", error)
        if now - self._absent.since > ABSENT_SECONDS:
            self._found = error

    def _replaced(self) -> SourceReplaced:
        return SourceReplaced(f"the NATS stream {self._source.stream} was deleted and recreated")

    def _identity(self, info: StreamInfo) -> str:
        source = self._source
        return f"nats/{source.stream}/{source.subject}/{info.created}"

    def _info(self, seconds: float) -> StreamInfo:
        client = self._client
        if client is None:
            raise BrokerUnavailable(f"NATS at {self._source.servers} is disconnected")
        return self._wait(stream_info(client, self._source, seconds))

    # ---- on the client's event loop

    async def _connected(self, seconds: float) -> Client:
        """Return a connected client. A disconnected one is replaced: its login may be outdated."""
        client = self._client
        if client is None or not client.is_connected:
            await self._disconnected()
            client = self._client = await connect(self._source, self._paths, seconds)
        return client

    async def _disconnected(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(*FAILURES):
                await asyncio.wait_for(client.close(), 2)

    async def _fetched(self, most: int, wait: float, gather: float) -> list[Msg]:
        if self._client is not None and not self._client.is_connected:
            raise nats.errors.ConnectionClosedError  # A fetch would wait in vain.
        subscription = self._subscription or await self._subscribed()
        # A request that timed out may be answered later: a fetch returns more than it asked for.
        messages, self._late = self._late[:most], self._late[most:]
        try:
            if wait and not messages:
                messages = await subscription.fetch(1, wait)
            if most > len(messages):
                messages += await subscription.fetch(most - len(messages), max(gather, 0.001))
        except TimeoutError:
            pass
        messages, self._late = messages[:most], messages[most:] + self._late
        good = []
        for message in messages:
            about = message.metadata
            if about.sequence.consumer != self._number + 1:
                self._subscription = None  # An event was lost: start again after these.
                break
            self._number += 1
            self._next = about.sequence.stream + 1
            good.append(message)
        if good:
            self._heard = monotonic()
        elif monotonic() - self._heard > _QUIET_SECONDS:
            self._heard = monotonic()
            await subscription.consumer_info()
            await self._skip_others()
        return good

    async def _skip_others(self) -> None:
        """Move on past positions of other subjects, before retention deletes them.

        Only to the middle of the log: a server that crashed may have lost the newest events, and a
        position beyond the end would mean a restored log.
        """
        client = await self._connected(_ASK_SECONDS)
        state = (await stream_info(client, self._source, _ASK_SECONDS)).state
        middle = (state.first_seq + state.last_seq + 1) // 2
        if middle <= self._next:
            return
        with suppress(*FAILURES):  # The login may not be allowed to look at single messages.
            if await self._last_of_subject(client) < self._next:
                self._next = self._skipped_to = middle

    async def _subscribed(self) -> JetStreamContext.PullSubscription:
        client = await self._connected(_ASK_SECONDS)
        info = await stream_info(client, self._source, _ASK_SECONDS)
        if self._identity(info) != self.identity:
            raise self._replaced()
        if self._next > info.state.last_seq + 1:
            raise PositionsOutOfRange(
                f"the NATS stream {self._source.stream} ends at {info.state.last_seq}"
            )
        jetstream = client.jetstream(timeout=_ASK_SECONDS)
        if self._consumer:
            with suppress(*FAILURES):  # Otherwise the server removes it by itself, but later.
                await jetstream.delete_consumer(self._source.stream, self._consumer)
        made = await jetstream.add_consumer(
            self._source.stream,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=max(1, self._next),
                ack_policy=AckPolicy.NONE,
                filter_subject=self._source.subject,
                inactive_threshold=_CONSUMER_SECONDS,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        self._consumer = made.name
        self._number = 0
        self._late = []
        self._heard = monotonic()
        self._subscription = await jetstream.pull_subscribe_bind(
            consumer=made.name, stream=self._source.stream
        )
        return self._subscription

    async def _last(self) -> int:
        """Return the position after the last event of the subject."""
        client, subscription = self._client, self._subscription
        if client is None:
            raise nats.errors.ConnectionClosedError
        if subscription is not None:
            with suppress(nats.js.errors.NotFoundError):  # The next poll makes it anew.
                about = await subscription.consumer_info()
                return self._next + (about.num_pending or 0)
        return await self._last_of_subject(client) + 1

    async def _last_of_subject(self, client: Client) -> int:
        """Return the position of the subject's last event; 0 if there is none."""
        jetstream = client.jetstream(timeout=_CHECK_SECONDS)
        try:
            found = await jetstream.get_last_msg(self._source.stream, self._source.subject)
        except nats.js.errors.NotFoundError:
            return 0
        return found.seq or 0

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
        lambda at: messages[at].metadata.timestamp.timestamp(),
        lambda: _asked(messages),
    )


def _asked(messages: list[Msg]) -> dict[int, bytes]:
    found = {}
    for at, message in enumerate(messages):
        # Only a gateway's events have the header; the headers of all others are not copied.
        if message.headers and QUESTION_HEADER in message.headers:
            digest = question_in(_headers(message))
            if digest is not None:
                found[at] = digest
    return found


def _headers(message: Msg) -> Headers:
    return tuple((name, value.encode()) for name, value in (message.headers or {}).items())
