"""One connection: bytes in, requests out, answers back in the order they were asked.

Owns order, time-outs and backpressure of a connection. It must not know what is asked: requests
go to the server's application, which answers at once or with something to await.

Pipelined requests run side by side; each holds a slot, and slots are written from the front. A
client with too many of them, or one that does not read its answers, is not read from: what was
read already waits in ``_stash``. A connection sets deadlines but holds no timer: the server looks
at all deadlines now and then, because arming a timer for every request costs more than parsing it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from inspect import iscoroutine
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, cast

from .intake import BEGUN, Intake
from .message import Answer, HttpError, Request, Response, SizedResponse, head_of
from .promise import Promise

if TYPE_CHECKING:
    from .server import Server

_SLICE = 32 * 1024
"""The parser cannot pause, so it is fed in slices: that bounds what one read can start."""

_JOIN = 16 * 1024
"""A body up to this size is copied behind its head, a larger one is written as it is."""

_PIECE = 64 * 1024
"""A body read while it is sent is written in pieces of this size, when there is room for one."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Slot:
    """A request's place in the order of answers. No request: an interim answer's place."""

    __slots__ = ("connection", "content", "keep", "plain", "request", "started")

    def __init__(
        self,
        connection: Connection,
        request: Request | None,
        keep: bool,
        started: float,
        plain: bool = False,
    ) -> None:
        self.connection = connection
        self.request = request
        self.keep = keep
        self.plain = plain
        self.started = started
        self.content: Response | None = None

    def done(self, future: asyncio.Future[Response]) -> None:
        """Take the answer from a future and write what can be written."""
        if future.cancelled():
            self.connection.drop(self)
            return
        error = future.exception()
        self.settle(None if error is not None else future.result(), error)

    def settle(self, response: Response | None, error: BaseException | None) -> None:
        """Take the answer, or the error there is instead, and write what can be written."""
        connection = self.connection
        server = connection.server
        request = cast(Request, self.request)
        if response is None:
            response = server.failed(request, cast(BaseException, error))
        self.content = response
        server.observe(request, response.status, self.started)
        if not (self.plain and connection.finish_alone(self, request, response)):
            connection.advance()


class Connection(Intake, asyncio.Protocol):
    """The protocol of one client's connection."""

    __slots__ = (
        "_fresh",
        "_lingers",
        "_out",
        "_room",
        "_sending",
        "_slots",
        "_stash",
        "_tasks",
        "_transport",
        "_write_deadline",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._write_deadline = inf
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._slots: deque[_Slot] = deque()
        self._tasks: set[asyncio.Task[Response] | asyncio.Task[None]] = set()
        self._sending = False  # the front slot's body is being read and written
        self._room: asyncio.Future[None] | None = None
        self._out: list[bytes] = []
        self._stash: deque[bytes] = deque()
        self._fresh = True  # no request has come yet
        self._lingers = False  # the client may not have finished sending

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the server, or be turned away where there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self.deadline = self.server.idle_deadline
        if not self.server.admit(self):
            self.refuse(HttpError(503, "too many connections", (b"retry-after: 1",)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything; nobody is left to answer."""
        self.closing = True
        self.deadline = self._write_deadline = inf
        self.server.forget(self)
        self.release()
        self._forget_slots()
        self._stash.clear()
        for task in list(self._tasks):
            task.cancel()

    def eof_received(self) -> bool:
        """Close: a half-closed connection is dropped, once what is written has left."""
        return False

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._write_deadline = self.server.now + self.server.limits.write_seconds
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with what was read before."""
        self._write_deadline = inf
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self.advance()

    def data_received(self, data: bytes) -> None:
        """Parse, answer what can be answered at once, and write it in one go."""
        if self.closing:
            return
        if self._stash:
            self._stash.append(data)
        elif len(data) <= _SLICE:
            known = self.server.heads.find(data) if not self._phase else None
            if known is None:
                self.feed(data)
            else:
                head, body = known
                request = Request(head.method, head.target, head.headers, body)
                self.take(request, True, head.plain)
            if len(self._slots) >= self.server.limits.pipeline:
                self._transport.pause_reading()
        else:
            self._feed_slices(data)
        if self._out:
            self._write()

    # ---- feeding the parser

    def _full(self) -> bool:
        return len(self._slots) >= self.server.limits.pipeline or self._write_deadline != inf

    def _feed_slices(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            if self.closing:
                return
            if self._full():
                self._stash.appendleft(bytes(view[start:]))
                self._transport.pause_reading()
                return
            self.feed(view[start : start + _SLICE])
            if self._out:
                self._write()

    # ---- answering

    def tell_to_continue(self) -> None:
        """Tell a client that expects it that its body is welcome, when its turn comes."""
        self._slots.append(_Slot(self, None, True, 0.0))
        self._flush_slots()

    def take(self, request: Request, keep: bool, plain: bool) -> None:
        """Hand a request to the application and keep its place in the order of answers."""
        server = self.server
        self._fresh = False
        started = perf_counter()
        try:
            answer: Answer = server.app(request)
        except Exception as error:  # noqa: BLE001  (the client gets a 500, the log the rest)
            answer = server.failed(request, error)
        if isinstance(answer, Response):
            server.observe(request, answer.status, started)
            held = type(answer) is Response
            if held and plain and not self._slots and not server.draining:
                self.deadline = server.idle_deadline
                self._put(request, answer, server.tail)
                return
            slot = _Slot(self, request, keep, started)
            slot.content = answer
            self._slots.append(slot)
            self._flush_slots()
            return
        self.deadline = inf
        slot = _Slot(self, request, keep, started, plain)
        self._slots.append(slot)
        if type(answer) is Promise:
            answer.then(slot.settle)
        elif iscoroutine(answer):
            task: asyncio.Task[Response] = server.loop.create_task(answer)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(slot.done)
        else:
            cast("asyncio.Future[Response]", answer).add_done_callback(slot.done)

    def finish_alone(self, slot: _Slot, request: Request, response: Response) -> bool:
        """Write an answer that is all there is to do: nothing else is due, waits or has begun.

        Returns False where it is not.
        """
        slots, server = self._slots, self.server
        if (
            len(slots) != 1
            or slots[0] is not slot
            or type(response) is not Response
            or len(response.body) > _JOIN
            or request.method == b"HEAD"
            or self._out
            or self._phase
            or self._stash
            or self.closing
            or server.draining
            or self._full()
        ):
            return False
        slots.clear()
        self.deadline = server.idle_deadline
        if not self._transport.is_closing():
            self._transport.write(head_of(response, server.tail) + response.body)
        return True

    def _put(self, request: Request, response: Response, tail: bytes) -> None:
        head = head_of(response, tail)
        if request.method == b"HEAD":
            self._out.append(head)
        elif len(response.body) <= _JOIN:
            self._out.append(head + response.body)
        else:
            self._out += (head, response.body)

    def _flush_slots(self) -> None:
        slots, server = self._slots, self.server
        while slots and (slots[0].request is None or slots[0].content is not None):
            if self._sending:
                return
            slot = slots.popleft()
            if slot.request is None:
                self._out.append(_CONTINUE)
                continue
            answer = cast(Response, slot.content)
            last = server.draining and not (slots or self._phase or self._stash)
            if type(answer) is SizedResponse:
                slots.appendleft(slot)
                self._begin(slot.request, answer, last or not slot.keep)
            elif last or not slot.keep:
                self._put(slot.request, answer, server.closing_tail)
                self._finish()
                return
            else:
                self._put(slot.request, answer, server.keeping_tail)
        if not slots and not self._phase:
            self.deadline = server.idle_deadline

    def _begin(self, request: Request, answer: SizedResponse, closes: bool) -> None:
        """Write the head of an answer whose body follows from its source, in a task of its own."""
        tail = self.server.closing_tail if closes else self.server.keeping_tail
        self._out.append(head_of(answer, tail))
        if request.method == b"HEAD":
            answer.discard()
        self._sending = True
        task = self.server.loop.create_task(self._send(answer, closes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, answer: SizedResponse, closes: bool) -> None:
        try:
            await self._send_body(answer)
        except Exception as error:  # noqa: BLE001  (the head has left: all there is to do is end)
            self.server.broke_off(error)
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
        if self.server.draining:
            self.close_if_idle()

    async def _send_body(self, answer: SizedResponse) -> None:
        source, left = answer.source, answer.length
        while source is not None and left:
            data = await source.read()
            if not data or len(data) > left:
                raise EOFError("the body is not as long as its head says")
            left -= len(data)
            for start in range(0, len(data), _PIECE):
                if self._write_deadline != inf:
                    self._room = self.server.loop.create_future()
                    await self._room
                self._transport.write(data[start : start + _PIECE])

    def advance(self) -> None:
        """Write the answers that are due, then go on reading where that had been stopped."""
        if self._transport.is_closing():
            return
        self._flush_slots()
        if self._out:
            self._write()
        while self._stash and not self.closing and not self._full():
            self._feed_slices(self._stash.popleft())
        if not self._full() and not self._transport.is_closing():
            self._transport.resume_reading()

    def _write(self) -> None:
        out, self._out = self._out, []
        if len(out) == 1:
            self._transport.write(out[0])
        else:
            self._transport.writelines(out)

    def _forget_slots(self) -> None:
        for slot in self._slots:
            if type(slot.content) is SizedResponse:
                slot.content.discard()
        self._slots.clear()

    def drop(self, slot: _Slot) -> None:
        """End the connection: the request in this slot was given up and has no answer."""
        if slot in self._slots:
            self._transport.abort()

    # ---- ends

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, after the answers due before it, and read no more."""
        self.release()
        self.closing = self._lingers = True
        self.deadline = inf
        slot = _Slot(self, Request(b"GET", self._url, [], b""), False, perf_counter())
        slot.content = error.response
        self._slots.append(slot)
        self.server.observe(cast(Request, slot.request), error.response.status, slot.started)
        self._flush_slots()

    def _finish(self) -> None:
        """Write what there is and close; after a refusal, let the client finish sending first."""
        self.closing = True
        self._write()
        self._forget_slots()
        self._stash.clear()
        if self._lingers and self._transport.can_write_eof():
            self.deadline = self.server.now + self.server.limits.linger_seconds
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if self._write_deadline < now:
            self._transport.abort()
        elif self.deadline < now:
            self.deadline = inf
            if self._stash or self._full():
                # It is we who do not read; the client is not to blame for it.
                self.deadline = self.server.header_deadline
                return
            if self.closing or self._phase <= BEGUN:
                self._transport.close()
            else:
                self.refuse(HttpError(408, "the request did not arrive in time"))

    def postpone(self, seconds: float) -> None:
        """Move the deadlines."""
        self.deadline += seconds
        self._write_deadline += seconds

    def close_if_idle(self) -> None:
        """Close where nothing is asked or owed.

        Who has just connected is about to ask, and gets a moment for it.
        """
        if self._slots or self._phase or self._stash:
            return
        if self._fresh and not self.closing:
            self.deadline = self.server.now + self.server.limits.linger_seconds
        else:
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()
