"""Work that grows with a request's size, on a thread: the event loop answers others meanwhile.

One thread: the interpreter lock lets two do no more than one. What waits for it is bounded by the
bytes a server has on account.
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
    """Return what ``do`` returns, or raise what it raises."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread(), lambda: do(*args, **kwargs))
