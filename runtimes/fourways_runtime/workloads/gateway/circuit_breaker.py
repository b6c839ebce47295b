"""The gateway's connection to the store: its address, its availability, and access to it.

Owns the store's address (a mounted file, re-read regularly because Secrets are rotated), the reader
opened for it, and the circuit breaker. While the store is down no request waits for it: requests
fail at once, and a single probe, a few times per second, detects when it is back. A new address is
adopted once its store answers, or at once if the current store does not answer. A typing error in a
rotated Secret therefore does not take a working gateway down.

The probing has neither an end nor growing pauses, unlike the loops of
:mod:`fourways_runtime.retry`: the gateway outlives any outage and must notice within a quarter of a
second that the store is back, and no request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from fourways_runtime.errors import StoreUnavailable, WorkloadError
from fourways_runtime.io.store.base import Lookup, PublishedRun
from fourways_runtime.io.store.reader import StoreReader
from fourways_runtime.io.store.streams.stream import AnswerKey, EventPosition, LiveLookup
from fourways_runtime.scoring.columns import Key

logger = logging.getLogger("fourways.gateway.store")

_T = TypeVar("_T")

OpenReader = Callable[[str, float], StoreReader]
"""Opens a reader for a store's address and a time-out in seconds, without waiting for the store.
Raises WorkloadError if the address is invalid."""

PROBE_SECONDS = 0.25
"""Pause between two probes of a store that is down."""

LONGEST_PROBE_SECONDS = 1.0
"""Maximum duration of a probe, so that one that hangs does not delay detecting the store's
return."""

WATCH_SECONDS = 1.0
"""Interval between checks of the address file while the store is up. A successful query also counts
as proof of readiness for this long."""


class StoreCircuitBreaker:
    """Guards access to the store. Raises StoreUnavailable while there is no usable store."""

    def __init__(
        self,
        address_file: str,
        open_reader: OpenReader,
        timeout_seconds: float,
        registry: CollectorRegistry,
    ) -> None:
        self.timeout = timeout_seconds
        self._file = Path(address_file)
        self._open = open_reader
        self._address: str | None = None
        self._reader: StoreReader | None = None
        self._up = False
        self._confirmed = float("-inf")
        self._probing: asyncio.Task[bool] | None = None
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._complaint = ""
        self._errors = Counter(
            "fourways_store_errors",
            "Queries to the prediction store that failed.",
            registry=registry,
        )
        gauge = Gauge(
            "fourways_store_up", "1 while the prediction store is available.", registry=registry
        )
        gauge.set_function(lambda: float(self._up))

    async def start(self) -> None:
        """Connect to the store now, and keep watching it."""
        await self._look()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching and close the reader."""
        tasks = [task for task in (self._watching, self._probing, *self._retiring) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reader is not None:
            await self._reader.close()
            self._reader = None

    async def ready(self) -> bool:
        """Return whether the store answers; a result less than a second old is reused."""
        if not self._up:
            return False
        if monotonic() - self._confirmed < WATCH_SECONDS:
            return True
        return await self._probe()

    async def lookup(
        self, namespace: str, deployment: str, keys: list[Key], seconds: float
    ) -> Lookup | None:
        """Look up keys, for at most ``seconds``. Raises StoreUnavailable.

        A failure triggers a probe. If the probe succeeds (only a connection was cut, the store
        is up), the lookup is retried once.
        """
        return await self._twice(lambda r: r.lookup(namespace, deployment, keys), seconds)

    async def live(
        self,
        namespace: str,
        deployment: str,
        keys: list[AnswerKey],
        places: Sequence[EventPosition],
        seconds: float,
    ) -> LiveLookup | None:
        """Look up a stream's predictions and dead letters, as :meth:`lookup` does for a run's."""
        return await self._twice(lambda r: r.live(namespace, deployment, keys, places), seconds)

    async def deployments(self, namespace: str) -> list[tuple[str, PublishedRun]]:
        """Return the deployments with a published run. Raises StoreUnavailable."""
        reader = self._current()
        return await self._ask(reader, reader.deployments(namespace), monotonic() + self.timeout)

    async def _twice(self, ask: Callable[[StoreReader], Awaitable[_T]], seconds: float) -> _T:
        deadline = monotonic() + seconds
        reader = self._current()
        try:
            return await self._ask(reader, ask(reader), deadline)
        except StoreUnavailable:
            if monotonic() >= deadline or not await self._within(self._probe(), deadline):
                raise
        reader = self._current()
        return await self._ask(reader, ask(reader), deadline)

    def _current(self) -> StoreReader:
        if self._reader is None or not self._up:
            raise StoreUnavailable("the prediction store is not available")
        return self._reader

    async def _ask(self, reader: StoreReader, question: Awaitable[_T], deadline: float) -> _T:
        try:
            answer = await self._within(question, deadline)
        except StoreUnavailable as error:
            self._errors.inc()
            if reader is self._reader:  # otherwise the address has changed meanwhile
                self._failed(error)
            raise
        self._confirmed = monotonic()
        return answer

    async def _within(self, question: Awaitable[_T], deadline: float) -> _T:
        try:
            async with asyncio.timeout_at(self._loop_time(deadline)):
                return await question
        except TimeoutError:
            raise StoreUnavailable("the prediction store did not respond in time") from None

    @staticmethod
    def _loop_time(deadline: float) -> float:
        return asyncio.get_running_loop().time() + max(0.0, deadline - monotonic())

    # ---- up or down

    def _failed(self, error: StoreUnavailable) -> None:
        if self._up:
            logger.warning("the prediction store does not respond: %s", error)
        self._up = False
        self._wake.set()

    async def _probe(self) -> bool:
        """Probe the store; concurrent callers share one probe."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe_once())
        return await asyncio.shield(self._probing)

    async def _probe_once(self) -> bool:
        reader = self._reader
        answers = reader is not None and await self._answers(reader)
        if reader is not self._reader:
            return self._up
        if answers:
            if not self._up:
                logger.info("the prediction store is available")
            self._confirmed = monotonic()
        elif self._up:
            logger.warning("the prediction store does not respond")
            self._wake.set()
        self._up = answers
        return answers

    async def _answers(self, reader: StoreReader) -> bool:
        try:
            return await self._within(
                reader.ready(), monotonic() + min(self.timeout, LONGEST_PROBE_SECONDS)
            )
        except StoreUnavailable:
            return False
        except Exception:
            logger.exception("probing the prediction store failed")
            return False

    # ---- the address file

    async def _watch(self) -> None:
        while True:
            try:
                await asyncio.wait_for(
                    self._wake.wait(), WATCH_SECONDS if self._up else PROBE_SECONDS
                )
            except TimeoutError:
                pass
            else:
                self._wake.clear()
                await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._look()
            except Exception:
                logger.exception("watching the prediction store failed; continuing")

    async def _look(self) -> None:
        address = self._read_address()
        if address is not None and address != self._address:
            await self._take(address)
        elif self._reader is not None and not self._up:
            await self._probe()

    def _read_address(self) -> str | None:
        try:
            address = self._file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            # If the file vanishes later, the address already read stays in use.
            if self._address is None:
                self._complain(f"no address of the prediction store: {type(error).__name__}")
            return None
        return address or None

    async def _take(self, address: str) -> None:
        try:
            reader = self._open(address, self.timeout)
        except WorkloadError as error:
            self._complain(f"the prediction store's address is not usable: {error}")
            return
        answers = await self._answers(reader)
        if self._up and not answers:
            self._complain("the store at the new address does not respond; keeping the current one")
            await reader.close()
            return
        old, self._reader, self._address = self._reader, reader, address
        self._up = answers
        self._complaint = ""
        if answers:
            self._confirmed = monotonic()
        logger.info("switched to the prediction store's new address", extra={"answers": answers})
        if old is not None:
            task = asyncio.create_task(self._retire(old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, reader: StoreReader) -> None:
        try:
            await asyncio.sleep(self.timeout)  # no query on this reader takes longer
        finally:
            await reader.close()

    def _complain(self, text: str) -> None:
        """Log a problem once, not at every check."""
        if text != self._complaint:
            logger.warning("%s", text)
        self._complaint = text
