"""Two callers with one key, idempotency key and other inputs, and a producer with it as an id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import orjson

from tools.demo.questions import reading

from .callers_rig import ANSWER_SECONDS, KeyFolder, Served

STREAM = "WATER"
SUBJECT = "water.readings"
ONE = "order-1"


def events_of_two_callers(gateway: Served, keys: KeyFolder, fault: Callable[[str], None]) -> None:
    """Ask with one idempotency key as two callers; publish with it as a producer."""
    first, second = keys.add("first", "predict:*"), keys.add("second", "predict:*")
    _until_known(gateway, second)
    before = stored_events(gateway)
    mine, others = "2022-04-27T19Z", "2022-04-27T20Z"
    asked = {
        "the first": _ask(gateway, first, mine),
        "the second, with another request": _ask(gateway, second, others),
        "the first again": _ask(gateway, first, mine),
    }
    for who, (status, said) in asked.items():
        if status not in (200, 202):
            fault(f"{who} is answered {status} {said}")
    status, said = _ask(gateway, first, "2022-04-27T21Z")
    if status != 422 or "Idempotency-Key" not in said.get("error", ""):
        fault(f"the first with another request is answered {status} {said}")
    _produce(gateway, "2022-04-27T22Z")
    for hour, key in ((mine, first), (others, second), ("2022-04-27T22Z", first)):
        status, said = _stored(gateway, key, hour)
        if status != 200 or said.get("key") != hour:
            fault(f"the event of {hour} is answered {status} {said}")
    _answers_of_one_key(gateway, {first: 10.0, second: 40.0}, fault)
    published = stored_events(gateway) - before
    if published != 5:
        fault(f"{published} events instead of 5")
    print(f"one idempotency key, two callers and a producer: {published} events, each answered")


def _answers_of_one_key(
    gateway: Served, flows: dict[str, float], fault: Callable[[str], None]
) -> None:
    """Each caller sends the same entity key with a flow of its own, twice: each has its answer."""
    told = []
    for key, flow in [*flows.items(), *flows.items()]:
        status, said = _ask(gateway, key, "2022-04-27T23Z", flow, "wait=20", "order-2")
        if status != 200:
            fault(f"a flow of {flow} is answered {status} {said}")
            return
        told.append({one["name"]: one["data"] for one in said["outputs"]})
    if told[0] != told[2] or told[1] != told[3]:
        fault(f"the same question is answered differently: {told}")
    if told[0]["score"] == told[1]["score"]:
        fault("a caller is given the answer to another's inputs")


def stored_events(gateway: Served) -> int:
    """Return the number of the last event of the stream."""

    async def last(jetstream: Any) -> int:
        return int((await jetstream.stream_info(STREAM)).state.last_seq)

    return int(_with_jetstream(gateway, last))


def _until_known(gateway: Served, key: str) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while gateway.ask("GET", "/predictions/water-flow/none", key)[0] == 401:
        if time.monotonic() > deadline:
            raise TimeoutError("a new key is not accepted")
        time.sleep(0.1)


def _ask(
    gateway: Served,
    key: str,
    hour: str,
    flow: float | None = None,
    prefer: str = "respond-async",
    once: str = ONE,
) -> tuple[int, Any]:
    tensors = reading(hour)[1]
    if flow is not None:
        next(one for one in tensors if one["name"] == "flow")["data"] = [flow]
    body, path = orjson.dumps({"inputs": tensors}), "/v2/models/water-flow/infer"
    status, said = gateway.ask("POST", path, key, body, Idempotency_Key=once, Prefer=prefer)
    return status, orjson.loads(said)


def _stored(gateway: Served, key: str, hour: str) -> tuple[int, Any]:
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        status, said = gateway.ask("GET", f"/predictions/water-flow/{hour}", key, Prefer="wait=20")
        if status == 200 or time.monotonic() > deadline:
            return status, orjson.loads(said)
        time.sleep(0.1)


def _produce(gateway: Served, hour: str) -> None:
    key, tensors = reading(hour)
    event: dict[str, Any] = {one["name"]: one["data"][0] for one in tensors}
    event |= {"reading": key, "before": tensors[-1]["data"]}

    async def publish(jetstream: Any) -> None:
        headers = {"Nats-Msg-Id": ONE, "ce-id": ONE}
        await jetstream.publish(SUBJECT, orjson.dumps(event), headers=headers, timeout=10)

    _with_jetstream(gateway, publish)


def _with_jetstream(gateway: Served, work: Callable[[Any], Any]) -> Any:
    settings = orjson.loads(Path(gateway.state, "nats", "server.conf").read_bytes())
    token = settings["authorization"]["token"]

    async def connected() -> Any:
        client = await nats.connect(f"nats://{settings['listen']}", token=token, connect_timeout=5)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(connected())
