"""A pool of read-only connections on an event loop, each of which runs one statement at a time.

Owns opening the pool on first use, the statement time-out, and the second attempt after the server
went away. The address is read again for every new connection, so a rotated Secret needs no restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
from psycopg import sql
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

T = TypeVar("T")

RECONNECT_SECONDS = 0.5
"""How long the pool retries before it gives up on a connection; the next statement starts over. So
the recovery of a server is noticed within this time, regardless of the pool's own backoff."""


_MAX_MILLISECONDS = 2**31 - 1
"""PostgreSQL's largest time: 24 days."""


class NoConnectionError(Exception):
    """The pool is closed, or provided no connection in time."""


async def configure_read_only(connection: psycopg.AsyncConnection, seconds: float) -> None:
    """Make a session read-only and limit its statements to ``seconds``."""
    milliseconds = min(max(1, int(seconds * 1000)), _MAX_MILLISECONDS)
    await connection.execute(
        sql.SQL("SET statement_timeout = {}; SET default_transaction_read_only = on").format(
            sql.Literal(milliseconds)
        )
    )


class ReadOnlyPool:
    """Connections to one database; the pool opens on first use."""

    def __init__(
        self,
        conninfo: Callable[[], str],
        configure: Callable[[psycopg.AsyncConnection], Awaitable[None]],
        *,
        size: int,
        wait_seconds: float,
        max_waiting: int = 0,
        stale: tuple[type[psycopg.Error], ...] = (),
    ) -> None:
        """``max_waiting``: maximum number of callers that wait for a connection; 0 for no limit.

        ``stale``: errors after which a connection is unusable although the server is healthy.
        """
        self._conninfo = conninfo
        self._configure = configure
        self._size = size
        self._wait_seconds = wait_seconds
        self._max_waiting = max_waiting
        self._stale = stale
        self._pool: AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def run(self, statement: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
        """Run a statement; retry it once on a new connection if the first one was broken.

        Raises:
            NoConnectionError: no connection was available in time.
            psycopg.Error: the statement failed.

        """
        pool = await self.open()
        for last in (False, True):
            connection = None
            try:
                async with pool.connection() as connection:
                    try:
                        return await statement(connection)
                    except self._stale:
                        await connection.close()
                        raise
            except (PoolTimeout, TooManyRequests, PoolClosed):
                raise NoConnectionError from None
            except psycopg.Error as error:
                if last or connection is None or not connection.closed:
                    raise
                if not isinstance(error, self._stale):
                    # The server went away, so the pool's other connections are dead as well.
                    await pool.drain()
        raise AssertionError

    async def open(self) -> AsyncConnectionPool:
        """Open the pool, if it is not open yet."""
        async with self._opening:
            if self._pool is None:
                pool = AsyncConnectionPool(
                    self._conninfo,
                    kwargs={"autocommit": True},
                    configure=self._configure,
                    min_size=1,
                    max_size=self._size,
                    max_waiting=self._max_waiting,
                    timeout=self._wait_seconds,
                    reconnect_timeout=RECONNECT_SECONDS,
                    open=False,
                )
                await pool.open()
                self._pool = pool
        return self._pool

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.close()
