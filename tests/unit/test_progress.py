"""How far runs are, as the operator learns it: from gateways that tell, are silent, or lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fourways_operator import progress as module
from fourways_operator.asking import ask
from fourways_operator.errors import GatewaySilent
from fourways_operator.progress import LONGEST_PAUSE, PAUSE, RunProgressTracker
from fourways_operator.work_queue import Key
from tests.kit.asked_gateway import AskedGateway

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
KEY = Key("shop", "churn")
FIGURES = {
    "state": "scoring",
    "rows": 5_000,
    "total_rows": 20_000,
    "rejects": 3,
    "chunks": 4,
    "chunks_done": 1,
    "rows_per_second": 1234.56,
    "eta_seconds": 15.0,
    "workers": [
        {
            "name": "a/0",
            "rows": 5_000,
            "rejects": 3,
            "rows_per_second": 1234.56,
            "chunks": 1,
            "alive": True,
        }
    ],
}


def running(run: str = "churn-1", outcome: str = "Running", progressing: str = "True") -> dict:
    conditions = [{"type": "Progressing", "status": progressing}]
    return {"lastRun": {"name": run, "outcome": outcome}, "conditions": conditions}


def told(run: str = "churn-1", **figures: Any) -> bytes:
    progress = FIGURES | figures
    return orjson.dumps({"runs": [{"deployment": "churn", "run": run, "progress": progress}]})


class Gateway(AskedGateway):
    def __init__(self, *answers: bytes | Exception) -> None:
        super().__init__(*answers)
        self.progress = RunProgressTracker(self.ask, self.changed.append, lambda: NOW, self.sleep)


async def followed(*answers: bytes | Exception) -> Gateway:
    gateway = Gateway(*answers)
    gateway.progress.note(KEY, running())
    await gateway.settle()
    return gateway


async def test_nobody_is_asked_while_nothing_runs() -> None:
    gateway = Gateway(told())
    for status in (None, {}, running(outcome="Succeeded"), running(progressing="False")):
        gateway.progress.note(KEY, status)
    await gateway.settle()
    assert (gateway.asked, gateway.progress.of(KEY)) == ([], {})


async def test_what_the_gateway_tells_is_known_and_said_once() -> None:
    gateway = await followed(told())
    known = gateway.progress.of(KEY)["churn-1"]
    assert known.to_json() == {
        "rows": 5_000,
        "totalRows": 20_000,
        "rejects": 3,
        "rowsPerSecond": 1230.0,
        "estimatedCompletion": "2026-03-01T03:00:15Z",
        "updatedAt": "2026-03-01T03:00:00Z",
        "workers": [
            {"name": "a/0", "rows": 5_000, "rejects": 3, "rowsPerSecond": 1230.0, "alive": True}
        ],
    }
    assert gateway.changed == [KEY]
    await gateway.pass_time()
    assert gateway.asked == [("shop",)] * 2
    assert gateway.changed == [KEY]  # the same again is no news


async def test_one_question_at_a_time_a_namespace_however_often_it_is_noted() -> None:
    gateway = await followed(told(), told(rows=6_000), told(rows=7_000))
    for _ in range(5):
        gateway.progress.note(KEY, running())
        gateway.progress.note(Key("shop", "other"), running("other-1"))
        await gateway.settle()
    assert (gateway.asked, gateway.pauses) == ([("shop",)], [PAUSE])
    await gateway.pass_time()
    assert gateway.progress.of(KEY)["churn-1"].rows == 6_000
    assert gateway.pauses == [PAUSE, PAUSE]


async def test_a_run_that_ended_is_asked_about_no_more() -> None:
    gateway = await followed(told())
    gateway.progress.note(KEY, running(outcome="Succeeded", progressing="False"))
    assert gateway.progress.of(KEY) == {}
    await gateway.pass_time()
    assert gateway.asked == [("shop",)]
    gateway.progress.note(KEY, running("churn-2"))  # and the next one is
    await gateway.settle()
    assert gateway.asked == [("shop",)] * 2
    assert gateway.progress.of(KEY) == {}  # the gateway speaks of the old one still


async def test_a_deployment_that_is_gone_is_forgotten() -> None:
    gateway = await followed(told())
    gateway.progress.forget_all_but({Key("shop", "other")})
    assert gateway.progress.of(KEY) == {}
    await gateway.pass_time()
    assert gateway.asked == [("shop",)]


NONSENSE = {
    "no json": b"<html>",
    "no runs": b"{}",
    "a number": b"7",
    "negative": told(rows=-1),
    "too large": told(rows=1 << 63),
    "not finite": told().replace(b"1234.56", b"NaN"),
    "no end in sight": told(eta_seconds=1e300),
    "a long name": told(workers=[FIGURES["workers"][0] | {"name": "x" * 300}]),  # type: ignore[index]
    "words": told(rejects="many"),
    "cut off": told()[:-9],
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_changes_nothing_and_is_asked_for_less_and_less(answer: bytes) -> None:
    gateway = await followed(told(), answer)
    for _ in range(6):
        await gateway.pass_time()
    assert gateway.progress.of(KEY)["churn-1"].rows == 5_000
    assert gateway.changed == [KEY]
    assert gateway.pauses == [PAUSE, PAUSE, 20.0, 40.0, 80.0, LONGEST_PAUSE, LONGEST_PAUSE]


async def test_a_gateway_that_comes_back_is_heard_again(caplog: pytest.LogCaptureFixture) -> None:
    silent = GatewaySilent("http://gateway: no answer")
    gateway = await followed(silent, silent, told())
    await gateway.pass_time()
    assert gateway.progress.of(KEY) == {}
    await gateway.pass_time()
    assert gateway.progress.of(KEY)["churn-1"].rows == 5_000
    assert gateway.pauses[-1] == PAUSE
    assert [r.levelname for r in caplog.records if "no answer" in r.message] == ["WARNING"]


async def test_a_bug_in_asking_does_not_end_the_asking() -> None:
    gateway = await followed(ZeroDivisionError("bug"), told())
    await gateway.pass_time()
    assert gateway.progress.of(KEY)["churn-1"].rows == 5_000


async def test_only_the_first_of_very_many_workers_are_told() -> None:
    workers = [FIGURES["workers"][0] | {"name": f"w/{n}"} for n in range(256)]  # type: ignore[index]
    gateway = await followed(told(workers=workers))
    assert len(gateway.progress.of(KEY)["churn-1"].workers) == 32


# ---------------------------------------------------------------- over HTTP

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/runs"


def saying(head: str, body: bytes = b"") -> Handler:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return handler


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def trickling(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b" " * 65_536)
        await writer.drain()


async def test_an_answer_is_read() -> None:
    async with served(saying("200 OK", told())) as url:
        assert await ask(url) == told()


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (silent, "TimeoutError"),
        (trickling, "TimeoutError"),
        (endless, "longer than"),
        (saying("503 Service Unavailable"), "HTTP 503"),
        (saying("307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/"), "HTTP 307"),
        (saying("nonsense"), "http://127.0.0.1"),
    ],
    ids=["silent", "trickling", "endless", "503", "elsewhere", "no HTTP"],
)
async def test_no_answer_is_a_fault_that_names_the_address(handler: Handler, words: str) -> None:
    seconds = 30.0 if handler is endless else 0.3
    async with served(handler) as url:
        with pytest.raises(GatewaySilent, match=words):
            await ask(url, seconds)


async def test_a_gateway_is_asked_by_the_name_of_its_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def ask(url: str) -> bytes:
        asked.append(url)
        return b""

    monkeypatch.setattr(module, "ask", ask)
    await module.ask_gateway("shop")
    assert asked == ["http://fourways-gateway.shop.svc/runs"]


async def test_no_such_host_is_a_fault() -> None:
    with pytest.raises(GatewaySilent, match="no-such-gateway"):
        await ask("http://no-such-gateway.invalid/runs")
