"""The operator's picture of the demand, from gateways that may be silent, slow or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fourways_api.demand import DeploymentDemand, GatewayDemand
from fourways_operator.demand import DemandTracker
from fourways_operator.errors import GatewaySilent
from fourways_operator.facts import Demand
from fourways_operator.work_queue import Key
from tests.kit.waiting import turns, until_async

KEY = Key("demo", "m")
ONE, TWO = {"a": "http://a/demand"}, {"a": "http://a/demand", "b": "http://b/demand"}


class Gateways:
    """What gateways answer, by their address. None: they are silent."""

    def __init__(self) -> None:
        self.told: dict[str, list[DeploymentDemand] | bytes | None] = {}
        self.asked: list[str] = []
        self.news = asyncio.Event()

    def tell(self, url: str, *demand: DeploymentDemand) -> None:
        self.told[url] = list(demand)
        self.news.set()
        self.news = asyncio.Event()

    async def ask(self, url: str) -> bytes:
        self.asked.append(url)
        at, _, query = url.partition("?")
        while True:
            told = self.told.get(at)
            if told is None:
                raise GatewaySilent("nobody answers")
            if isinstance(told, bytes):
                return told
            mark = str(hash(repr(told)))
            if f"mark={mark}&" not in query:
                return GatewayDemand(mark=mark, deployments=tuple(told)).model_dump_json().encode()
            await self.news.wait()


@asynccontextmanager
async def tracking() -> AsyncIterator[tuple[DemandTracker, Gateways, list[Key]]]:
    gateways, changed = Gateways(), list[Key]()

    async def no_pause(seconds: float) -> None:
        await turns()

    tracker = DemandTracker(gateways.ask, changed.append, no_pause)
    try:
        yield tracker, gateways, changed
    finally:
        tracker.stop()


def idle(**more: object) -> DeploymentDemand:
    return DeploymentDemand.model_validate({"deployment": "m", "idle": True, **more})


async def test_a_change_is_told_and_silence_is_not_idleness() -> None:
    async with tracking() as (tracker, gateways, changed):
        gateways.tell("http://a/demand", idle(), idle(deployment="other"))
        tracker.note(KEY, ONE)
        assert tracker.of(KEY) is None
        await until_async(lambda: tracker.of(KEY) == Demand(idle=True), "it is idle")
        assert changed == [KEY]
        gateways.tell("http://a/demand", idle(idle=False, waiting=2))
        await until_async(lambda: tracker.of(KEY) == Demand(waiting=2), "requests wait")
        gateways.told.clear()
        gateways.tell("http://b/demand")
        await until_async(lambda: tracker.of(KEY) is None, "nothing is known")


async def test_it_is_idle_only_if_every_gateway_says_so() -> None:
    async with tracking() as (tracker, gateways, _):
        gateways.tell("http://a/demand", idle())
        tracker.note(KEY, TWO)
        await until_async(lambda: tracker.of(KEY) == Demand(), "one is silent")
        gateways.tell("http://b/demand", idle(idle=False, waiting=1))
        await until_async(lambda: tracker.of(KEY) == Demand(waiting=1), "one has a request")
        gateways.tell("http://b/demand", idle(cold_start_seconds=2, woken_at="2026-03-01T11:00Z"))
        await until_async(lambda: (tracker.of(KEY) or Demand()).idle, "both are idle")
        assert tracker.of(KEY) == Demand(0, True, 2.0, "2026-03-01T11:00Z")


async def test_a_wrong_answer_counts_as_silence_and_others_go_on() -> None:
    async with tracking() as (tracker, gateways, _):
        for wrong in (b"", b"[]", b'{"deployments": [{"deployment": "m", "waiting": -1}]}'):
            gateways.told["http://a/demand"] = wrong
            tracker.note(KEY, ONE)
            before = len(gateways.asked)
            await until_async(lambda b=before: len(gateways.asked) > b + 2, "it asks again")
            assert tracker.of(KEY) is None
        gateways.tell("http://a/demand", idle())
        await until_async(lambda: tracker.of(KEY) == Demand(idle=True), "it is idle")


async def test_a_deployment_that_has_gone_is_no_longer_followed() -> None:
    async with tracking() as (tracker, gateways, _):
        gateways.tell("http://a/demand", idle())
        tracker.note(KEY, ONE)
        await until_async(lambda: tracker.of(KEY) is not None, "it is known")
        tracker.forget_all_but([])
        assert tracker.of(KEY) is None
        gateways.tell("http://a/demand", idle(waiting=1))
        await until_async(lambda: not tracker._following, "nobody is asked")
