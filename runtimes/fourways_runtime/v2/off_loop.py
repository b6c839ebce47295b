"""Runs work that grows with a request's size on a thread, so that it does not block the event loop.

There is one thread, because the interpreter lock keeps two from doing more. The queue for it is
bounded by the server's limit on buffered bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="large")


async def off_loop(do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``do`` on the thread; return what it returns, or raise what it raises."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread(), lambda: do(*args, **kwargs))
