"""The gateway before a predictor that KServe's own SDK serves: V1, V2, and OpenAI's chat."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from fourways_api import Route
from fourways_cli.embedded.ports import free_port
from tests.kit.gateway_plane import Running, running
from tests.kit.waiting import until

pytestmark = pytest.mark.embedded

CHAT = "/openai/v1/chat/completions"
QUESTION = {"model": "chat", "messages": [{"role": "user", "content": "how are you"}]}


@pytest.fixture(scope="module")
def predictor() -> Iterator[str]:
    """The SDK's server; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ("--http_port", str(port), "--model_name", "chat-realtime")
    process = subprocess.Popen([sys.executable, "-m", "tests.kit.kserve_predictor", *command])

    def answers() -> bool:
        assert process.poll() is None, "the predictor ended"
        try:
            return httpx.get(f"{url}/v2/models/chat-realtime/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        until(answers, "the predictor answers", seconds=60)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@asynccontextmanager
async def before(predictor: str, folder: Path) -> AsyncIterator[Running]:
    route = Route(
        deployment="chat",
        mode="realtime",
        version="1",
        url=predictor,
        timeout_seconds=5,
        model_name="chat-realtime",
    )
    async with running(folder, routes=(route,)) as plane:
        yield plane


async def test_both_versions_of_the_protocol(predictor: str, tmp_path: Path) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}
    async with before(predictor, tmp_path) as plane:
        answer = await plane.client.post("/v2/models/chat/infer", json={"inputs": [tensor]})
        assert answer.json()["outputs"][0]["data"] == [2, 4, 6]
        answer = await plane.client.post("/v1/models/chat:predict", json={"instances": [1, 2]})
        assert answer.json() == {"predictions": [2, 4]}
        assert (await plane.get("/v2/models/chat/ready"))[0] == 200
        assert (await plane.get("/v1/models/chat"))[0] == 200


async def test_a_chat_is_answered_whole_and_word_by_word(predictor: str, tmp_path: Path) -> None:
    async with before(predictor, tmp_path) as plane:
        whole = (await plane.client.post(CHAT, json=QUESTION)).json()
        assert whole["choices"][0]["message"]["content"] == "how are you"
        async with plane.client.stream("POST", CHAT, json={**QUESTION, "stream": True}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line async for line in answer.aiter_lines()]
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        words = [event["choices"][0]["delta"]["content"] for event in events]
        assert words == ["how", "are", "you"]
