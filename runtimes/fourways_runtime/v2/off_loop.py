"""Runs work that grows with a request's size on a thread, so that it does not block the event loop.

There is one thread, because the interpreter lock keeps two from doing more. The queue for it is
bounded by the server's limit on buffered bytes.

The garbage collector stops while the thread works: it would look through everything that has been
parsed so far, up to millions of lists, again and again, and holds the interpreter lock for as long.
Parsed values contain no cycles, so there is nothing to find among them.
"""

from __future__ import annotations

import asyncio
import gc
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

    def undisturbed() -> T:
        gc.disable()
        try:
            return do(*args, **kwargs)
        finally:
            gc.enable()

    return await loop.run_in_executor(_thread(), undisturbed)
