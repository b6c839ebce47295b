"""One connection: bytes in, requests out, responses back in the order of the requests.

Owns order, timeouts and backpressure of a connection. It must not know what the requests are about:
they go to the server's application, which returns a response or an awaitable.

Buffered bytes are counted (``ServerState.buffered``): a body's until its request is answered, a
response's until the client has read it.

Pipelined requests run concurrently; each holds a slot, and slots are written from the front. The
server stops reading from a client with too many pending requests, or from one that does not read
its responses; data already read waits in ``_stash``. A connection sets deadlines but holds no
timer: the server checks all deadlines periodically, because arming a timer for every request costs
more than parsing it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from inspect import iscoroutine
from math import inf
from time import perf_counter
from typing import Final, cast

from .compression import MIN_BYTES, compressed, compressible
from .intake import BEGUN, Arrival, Intake
from .message import Answer, HttpError, Request, Response, SizedResponse, head_of, message_of
from .promise import Promise
from .state import ServerState

_SLICE: Final = 32 * 1024
"""The parser cannot pause, so it is fed in slices: this bounds what one read can start."""

_JOIN: Final = 16 * 1024
"""A body up to this size is copied behind its head; a larger one is written separately."""

_PIECE: Final = 64 * 1024
"""A streamed body is written in pieces of this size, whenever there is room for one."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Slot:
    """A request's place in the order of responses. No request: an interim response's place."""

    __slots__ = ("answer", "connection", "content", "held", "keep", "plain", "request", "started")

    def __init__(
        self,
        connection: Connection,
        request: Request | None,
        keep: bool,
        started: float,
        held: int,
        plain: bool = False,
    ) -> None:
        self.connection = connection
        self.request = request
        self.keep = keep
        self.plain = plain
        self.started = started
        self.held = held  # buffered bytes that count for this slot
        self.answer: Promise | asyncio.Future[Response] | None = None  # awaited
        self.content: Response | None = None

    def done(self, future: asyncio.Future[Response]) -> None:
        """Take the response from a future and write what can be written."""
        if future.cancelled():
            self.hold(0)
            self.connection.drop(self)
            return
        error = future.exception()
        self.settle(None if error is not None else future.result(), error)

    def settle(self, response: Response | None, error: BaseException | None) -> None:
        """Take the response, or the error, and write what can be written."""
        connection = self.connection
        state = connection.state
        request = cast(Request, self.request)
        if response is None:
            response = state.failed(request, cast(BaseException, error))
        self.answer = None
        state.observe(request, response.status, self.started)
        if self.plain and connection.finish_alone(self, request, response):
            return
        self.hold(0 if connection.lost else len(response.body))
        self.fill(request, response)
        connection.advance()

    def fill(self, request: Request, response: Response) -> None:
        """Take the response that is sent, which is compressed first if it is worth it."""
        large = len(response.body) >= MIN_BYTES and not self.connection.lost
        if large and compressible(request, response):
            self.connection.compress(self, response)
        else:
            self.content = response

    def hold(self, size: int) -> None:
        """Set the number of buffered bytes that count for this slot."""
        self.connection.state.buffered += size - self.held
        self.held = size

    def leave(self, lost: bool) -> None:
        """Signal to the producer of the response that the client has left, or may have left."""
        answer = self.answer
        if type(answer) is Promise:
            if lost:
                answer.abandoned = True
            else:
                answer.half_closed = True
        elif lost and answer is not None:
            cast("asyncio.Future[Response]", answer).cancel()


class Connection(asyncio.Protocol):
    """The protocol of one client's connection."""

    __slots__ = (
        "_closing",
        "_deadline",
        "_fresh",
        "_intake",
        "_lingers",
        "_out",
        "_room",
        "_sending",
        "_slots",
        "_stash",
        "_tasks",
        "_transport",
        "_unsent",
        "_write_deadline",
        "half_closed",
        "lost",
        "state",
    )

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.lost = False  # the connection has ended
        self._intake = Intake(state)
        self._closing = False  # nothing more is read from this client
        self.half_closed = False  # the client sends no more, but may still read
        self._deadline = inf
        self._write_deadline = inf
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._slots: deque[_Slot] = deque()
        self._tasks: set[asyncio.Task[Response] | asyncio.Task[None]] = set()
        self._sending = False  # the front slot's body is being read and written
        self._room: asyncio.Future[None] | None = None
        self._out: list[bytes] = []
        self._stash: deque[bytes] = deque()
        self._unsent = 0  # buffered bytes that the client has not read
        self._fresh = True  # no request has arrived yet
        self._lingers = False  # the client may not have finished sending

    # ---- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the server, or reject the connection if there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._deadline = self.state.idle_deadline
        if not self.state.admit(self):
            self._refuse(HttpError(503, "too many connections", (b"retry-after: 1",)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up; the client is gone."""
        self._closing = self.lost = True
        self._deadline = self._write_deadline = inf
        self.state.forget(self)
        self._intake.release()
        self._account_unsent(0)
        for slot in self._slots:
            slot.leave(lost=True)
        self._forget_slots()
        self._stash.clear()
        for task in list(self._tasks):
            task.cancel()

    def eof_received(self) -> bool:
        """Answer the requests sent before the client closed its sending half, then close."""
        if not (self._slots or self._stash):
            return False
        self.half_closed = True
        for slot in self._slots:
            slot.leave(lost=False)
        return True

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._write_deadline = self.state.now + self.state.limits.write_seconds
        self._account_unsent(self._transport.get_write_buffer_size())
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume with the data that was read before."""
        self._write_deadline = inf
        self._account_unsent(0)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self.advance()

    def data_received(self, data: bytes) -> None:
        """Parse, answer what can be answered at once, and write it in one call."""
        if self._closing:
            return
        state = self.state
        if self._stash:
            self._stash.append(data)
        elif len(data) <= _SLICE:
            known = state.heads.find(data) if not self._intake.phase else None
            if known is None or state.buffered + len(data) > state.buffered_bytes:
                self._feed(data)
            else:
                head, body = known
                request = Request(head.method, head.target, head.headers, body)
                request.echo = head.echo
                request.memo = head.memo
                held = len(body)
                state.buffered += held
                self._take(request, True, head.plain, held)
            if len(self._slots) >= state.pipeline:
                self._transport.pause_reading()
        else:
            self._feed_slices(data)
        if self._out:
            self._write()

    def _account_unsent(self, size: int) -> None:
        self.state.buffered += size - self._unsent
        self._unsent = size

    # ---- feeding the parser

    def _full(self) -> bool:
        return len(self._slots) >= self.state.pipeline or self._write_deadline != inf

    def _feed_slices(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            if self._closing:
                return
            if self._full():
                self._stash.appendleft(bytes(view[start:]))
                self._transport.pause_reading()
                return
            self._feed(view[start : start + _SLICE])
            if self._out:
                self._write()

    def _feed(self, data: bytes | memoryview) -> None:
        self._intake.feed(data)
        for arrival in self._intake.take():
            self._see(arrival)

    def _see(self, arrival: Arrival) -> None:
        request = arrival.request
        if request is not None:
            self._closing = not arrival.keep
            self._take(request, arrival.keep, arrival.plain, arrival.held)
        elif arrival.refusal is not None:
            self._refuse(arrival.refusal)
        else:  # send 100 Continue when its turn comes: the client waits for it
            self._slots.append(_Slot(self, None, True, 0.0, 0))
            self._flush_slots()

    # ---- answering

    def _take(self, request: Request, keep: bool, plain: bool, held: int) -> None:
        """Pass a request to the application and keep its place in the order of responses."""
        server = self.state
        self._fresh = False
        request.waited = server.lag
        started = perf_counter()
        try:
            answer: Answer = server.app(request)
        except Exception as error:  # noqa: BLE001  (the client gets a 500, the log the rest)
            answer = server.failed(request, error)
        if isinstance(answer, Response):
            server.observe(request, answer.status, started)
            whole = type(answer) is Response and len(answer.body) < MIN_BYTES
            if whole and plain and not self._slots and not server.draining and not self.half_closed:
                server.buffered -= held
                self._deadline = server.idle_deadline
                self._put(request, answer, server.tail)
                return
            slot = _Slot(self, request, keep, started, held)
            slot.hold(len(answer.body))
            slot.fill(request, answer)
            self._slots.append(slot)
            self._flush_slots()
            return
        self._deadline = inf
        slot = _Slot(self, request, keep, started, held, plain)
        self._slots.append(slot)
        if type(answer) is Promise:
            slot.answer = answer
            answer.then(slot.settle)
        elif iscoroutine(answer):
            task: asyncio.Task[Response] = server.running_loop().create_task(answer)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(slot.done)
        else:
            future = cast("asyncio.Future[Response]", answer)
            slot.answer = future
            future.add_done_callback(slot.done)

    def compress(self, slot: _Slot, response: Response) -> None:
        """Write a response once it is compressed; until then its slot is not filled."""
        self._deadline = inf
        task = self.state.running_loop().create_task(self._compress(slot, response))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compress(self, slot: _Slot, response: Response) -> None:
        try:
            slot.content = await compressed(response)
        finally:
            slot.hold(0 if self.lost or slot.content is None else len(slot.content.body))
        self.advance()

    def finish_alone(self, slot: _Slot, request: Request, response: Response) -> bool:
        """Write a response directly if nothing else is due, waiting or in progress.

        Returns False if it cannot.
        """
        slots, server = self._slots, self.state
        if (
            len(slots) != 1
            or slots[0] is not slot
            or type(response) is not Response
            or len(response.body) > _JOIN
            or request.method == b"HEAD"
            or self._out
            or self._intake.phase
            or self._stash
            or self._closing
            or self.half_closed
            or server.draining
            or self._full()
        ):
            return False
        slots.clear()
        server.buffered -= slot.held
        self._deadline = server.idle_deadline
        if not self._transport.is_closing():
            tail = server.tail if request.echo is None else request.echo + server.tail
            self._transport.write(message_of(response, tail))
        return True

    def _put(self, request: Request, response: Response, tail: bytes) -> None:
        if request.echo is not None:
            tail = request.echo + tail
        if request.method == b"HEAD":
            self._out.append(head_of(response, tail))
        elif len(response.body) <= _JOIN:
            self._out.append(message_of(response, tail))
        else:
            self._out += (head_of(response, tail), response.body)

    def _flush_slots(self) -> None:
        slots, server = self._slots, self.state
        while slots and (slots[0].request is None or slots[0].content is not None):
            if self._sending:
                return
            slot = slots.popleft()
            if slot.request is None:
                self._out.append(_CONTINUE)
                continue
            slot.hold(0)  # the transport's buffer is counted when it does not drain
            answer = cast(Response, slot.content)
            none_follows = not (slots or self._stash)
            last = none_follows and (
                self.half_closed or (server.draining and not self._intake.phase)
            )
            if type(answer) is SizedResponse:
                slots.appendleft(slot)
                self._begin(slot.request, answer, last or not slot.keep)
            elif last or not slot.keep:
                self._put(slot.request, answer, server.closing_tail)
                self._finish()
                return
            else:
                self._put(slot.request, answer, server.keeping_tail)
        if not slots and not self._intake.phase:
            self._deadline = server.idle_deadline

    def _begin(self, request: Request, answer: SizedResponse, closes: bool) -> None:
        """Write the head of a response, and stream its body from the source in a separate task."""
        tail = self.state.closing_tail if closes else self.state.keeping_tail
        if request.echo is not None:
            tail = request.echo + tail
        self._out.append(head_of(answer, tail))
        if request.method == b"HEAD":
            answer.discard()
        self._sending = True
        task = self.state.running_loop().create_task(self._send(answer, closes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, answer: SizedResponse, closes: bool) -> None:
        try:
            if answer.length is None:
                await self._send_chunks(answer, closes)
            else:
                await self._send_body(answer)
        except Exception as error:  # noqa: BLE001  (the head has left: all there is to do is end)
            self.state.broke_off(error)
            self._transport.abort()
            return
        finally:
            answer.discard()
        self._sending = False
        if self._slots:
            self._slots.popleft()
        if closes:
            self._finish()
            return
        self.advance()
        if self.state.draining:
            self.close_if_idle()

    async def _send_body(self, answer: SizedResponse) -> None:
        source, left = answer.source, answer.length or 0
        while source is not None and left:
            data = await source.read()
            if not data or len(data) > left:
                raise EOFError("the body's length differs from its Content-Length")
            left -= len(data)
            await self._send_data(data)

    async def _send_chunks(self, answer: SizedResponse, closes: bool) -> None:
        """Send a body of unknown length: in chunks, or up to the end of the connection."""
        source = answer.source
        while source is not None and (data := await source.read()):
            await self._send_data(data if closes else b"%x\r\n%b\r\n" % (len(data), data))
        if not closes and source is not None:
            await self._send_data(b"0\r\n\r\n")

    async def _send_data(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            if self._write_deadline != inf:
                self._room = self.state.running_loop().create_future()
                await self._room
            self._transport.write(data[start : start + _PIECE])

    def advance(self) -> None:
        """Write the responses that are due, then resume reading if it was stopped."""
        if self._transport.is_closing():
            return
        self._flush_slots()
        if self._out:
            self._write()
        while self._stash and not self._closing and not self._full():
            self._feed_slices(self._stash.popleft())
        if self.half_closed and not (self._slots or self._stash or self._closing):
            self._finish()  # all complete requests have been answered
            return
        if not self._full() and not self._transport.is_closing():
            self._transport.resume_reading()

    def _write(self) -> None:
        out, self._out = self._out, []
        if len(out) == 1:
            self._transport.write(out[0])
        elif out:
            self._transport.writelines(out)
        if self._write_deadline != inf:
            self._account_unsent(self._transport.get_write_buffer_size())

    def _forget_slots(self) -> None:
        for slot in self._slots:
            if slot.content is not None:  # else its body stays counted until it is answered
                slot.hold(0)
            if type(slot.content) is SizedResponse:
                slot.content.discard()
        self._slots.clear()

    def drop(self, slot: _Slot) -> None:
        """End the connection: the request in this slot was abandoned and has no response."""
        if slot in self._slots:
            self._transport.abort()

    # ---- ends

    def _refuse(self, error: HttpError) -> None:
        """Send an error response after the responses due before it, and stop reading."""
        self._closing = self._lingers = True
        self._deadline = inf
        request = Request(b"GET", self._intake.url, [], b"")
        slot = _Slot(self, request, False, perf_counter(), 0)
        slot.content = error.response
        self._slots.append(slot)
        self.state.observe(request, error.response.status, slot.started)
        self._flush_slots()

    def _finish(self) -> None:
        """Write what is pending and close; after a refusal, let the client finish sending first."""
        self._closing = True
        self._write()
        self._forget_slots()
        self._stash.clear()
        if self._lingers and self._transport.can_write_eof():
            self._deadline = self.state.now + self.state.limits.linger_seconds
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        intake = self._intake
        if self._write_deadline < now:
            self._transport.abort()
        elif self._deadline < now or intake.deadline < now:
            self._deadline = intake.deadline = inf
            if self._stash or self._full():
                # The server stopped reading, so the delay is not the client's fault.
                self._deadline = self.state.header_deadline
                return
            if self._closing or intake.phase <= BEGUN:
                self._transport.close()
            else:
                intake.release()
                self._refuse(HttpError(408, "the request did not arrive in time"))

    def postpone(self, seconds: float) -> None:
        """Move the deadlines."""
        self._deadline += seconds
        self._intake.deadline += seconds
        self._write_deadline += seconds

    def close_if_idle(self) -> None:
        """Close if no request or response is pending.

        A client that has just connected is about to send a request, and gets a moment for it.
        """
        if self._slots or self._intake.phase or self._stash:
            return
        if self._fresh and not self._closing:
            self._deadline = self.state.now + self.state.limits.linger_seconds
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()
