"""A gateway that the operator asks, which answers what the test says, in time that it lets pass."""

from __future__ import annotations

import asyncio

from fourways_operator.work_queue import Key
from tests.kit.waiting import turns


class AskedGateway:
    """Answers questions in turn, the last answer again and again.

    Time passes when a test says so: ``pauses`` are the waits that were asked for.
    """

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, ...]] = []
        self.pauses: list[float] = []
        self.changed: list[Key] = []
        self._tick = asyncio.Semaphore(0)

    async def ask(self, *what: str) -> bytes:
        self.asked.append(what)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self._tick.acquire()

    async def pass_time(self) -> None:
        """Let the present wait end, and whatever follows come to its next."""
        self._tick.release()
        await self.settle()

    async def settle(self) -> None:
        await turns(10)
