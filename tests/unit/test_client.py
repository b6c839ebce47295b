"""The Python client: what it asks, what it returns, what it tries again, and its errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fourways import (
    AsyncClient,
    CallerRefused,
    Client,
    Event,
    EventRefused,
    FourwaysError,
    GatewayUnavailable,
    PredictionMissing,
    PredictionPending,
    RequestInvalid,
    ServerFault,
)
from fourways.tensors import columns_of
from tests.kit.gateway_plane import Running, running
from tests.kit.serving_plane import MIXED, Serving, configure, mixed, serving
from tools.kit.models import LINEAR, linear

ROWS = [{"age": 33, "spend": 0.5, "rate": 1.5}, {"age": 120, "spend": -2.5, "rate": 2.0}]


@pytest.fixture
async def model(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(configure(tmp_path, linear(), LINEAR, timeoutSeconds=30)) as plane:
        yield plane


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as plane:
        yield plane


async def test_a_record_is_scored(model: Serving) -> None:
    async with AsyncClient(str(model.client.base_url)) as client:
        one = await client.predict("churn", ROWS[0], key="ann")
        both = await client.predict_many("churn", ROWS, chunk=1)
    assert (one.deployment, one.key, one.version) == ("churn", "ann", "v1")
    assert one["score"] == one.value == both[0].value
    assert both[1].value != one.value


async def test_inputs_that_are_no_record_are_refused_with_what_takes_rows(model: Serving) -> None:
    async with AsyncClient(str(model.client.base_url)) as client:
        with pytest.raises(TypeError, match="mapping from names to values; predict_many"):
            await client.predict("churn", [1, 2])  # type: ignore[arg-type]


async def test_the_client_for_threads_does_the_same(model: Serving) -> None:
    def asked() -> Any:
        with Client(str(model.client.base_url)) as client:
            return client.predict("churn", ROWS[0]).value, client.predict_many("churn", ROWS)

    value, both = await asyncio.to_thread(asked)
    assert both[0].value == value


async def test_a_data_frame_is_answered_with_one(model: Serving) -> None:
    import pandas

    frame = pandas.DataFrame(ROWS, index=["a", "b"]).astype({"age": "int32", "spend": "float32"})
    async with AsyncClient(str(model.client.base_url)) as client:
        found = await client.predict_many("churn", frame)
        expected = await client.predict_many("churn", ROWS)
    assert isinstance(found, pandas.DataFrame)
    assert found.index.tolist() == ["a", "b"]
    assert found["score"].tolist() == [one.value for one in expected]


async def test_shapes_and_types_come_back(tmp_path: Path) -> None:
    row = {"word": "ü", "flag": True, "big": 2**64 - 1, "grid": [[1.0, 2.0], [3.0, 4.0]]}
    async with (
        serving(configure(tmp_path, mixed(), MIXED)) as model,
        AsyncClient(str(model.client.base_url)) as client,
    ):
        found = await client.predict("churn", row)
    assert found.outputs == {f"{name}_out": value for name, value in row.items()}
    with pytest.raises(ValueError, match="several outputs"):
        _ = found.value


async def test_stored_predictions_are_looked_up(gateway: Running) -> None:
    async with AsyncClient(gateway.url) as client:
        found = await client.predict("churn", key="c3")
        many = await client.predict_many("churn", keys=["c1", "nobody", "c3"])
        with pytest.raises(PredictionMissing, match="no prediction for that key"):
            await client.predict("churn", key="nobody")
        with pytest.raises(PredictionMissing, match="nothing is published for other"):
            await client.predict("other", key="c1")
    assert (found["label"], found.details["run"], found.version) == ("l3", "run-7", "7")
    assert found.age_seconds > 0
    assert found.computed_at is not None
    assert [one and one["label"] for one in many] == ["l1", None, "l3"]
    assert (many[2].key, many[2].details["run"]) == ("c3", "run-7")


async def test_a_bad_record_names_its_field(model: Serving) -> None:
    async with AsyncClient(str(model.client.base_url)) as client:
        with pytest.raises(RequestInvalid) as refused:
            await client.predict_many("churn", [ROWS[0], {**ROWS[1], "age": 121}])
    error = refused.value
    assert (error.field, error.rows[0]["row"]) == ("age", 1)
    assert "above 120" in str(error.reason)


def gateway_of(answers: Callable[[httpx.Request], httpx.Response], **options: Any) -> AsyncClient:
    client = AsyncClient("http://gateway", **options)
    client._http = httpx.AsyncClient(
        base_url="http://gateway", transport=httpx.MockTransport(answers)
    )
    return client


DESCRIBED = {"name": "water", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}


async def test_what_is_not_available_is_tried_again_and_one_event_stays_one() -> None:
    keys: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=DESCRIBED)
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ConnectError("refused")
        if len(keys) == 2:
            return httpx.Response(503, headers={"retry-after": "0.01"}, json={"error": "later"})
        outputs = [{"name": "y", "shape": [1], "data": [2.0]}]
        return httpx.Response(200, json={"model_name": "water", "outputs": outputs})

    async with gateway_of(answers) as client:
        assert (await client.predict("water", {"x": 1.0})).value == 2.0
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_it_gives_up_and_says_why() -> None:
    asked: list[httpx.Request] = []

    def answers(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(503, json={"error": "the prediction store is not available"})

    async with gateway_of(answers, attempts=2) as client:
        with pytest.raises(GatewayUnavailable, match="the prediction store is not available"):
            await client.predict("churn", key="a")
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestInvalid),
        (401, CallerRefused),
        (403, CallerRefused),
        (404, PredictionMissing),
        (413, RequestInvalid),
        (422, EventRefused),
        (500, ServerFault),
        (502, ServerFault),
        (504, GatewayUnavailable),
    ],
)
async def test_the_error_says_whose_fault_it_is(status: int, kind: type[FourwaysError]) -> None:
    asked: list[httpx.Request] = []

    def answers(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json={"error": "no", "field": "age"})

    async with gateway_of(answers) as client:
        with pytest.raises(kind, match="no") as raised:
            await client.predict("churn", key="a")
    assert type(raised.value) is kind
    assert raised.value.details["field"] == "age"
    assert len(asked) == 1, "sent once"


async def test_an_event_is_waited_for() -> None:
    waits: list[str | None] = []

    def answers(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2/models/water":
            return httpx.Response(200, json=DESCRIBED)
        told = {"deployment": "water", "key": "a", "id": "fourways-1"}
        if request.method == "POST":
            location = {"location": "/predictions/water/a?question=00"}
            return httpx.Response(202, headers=location, json=told)
        waits.append(request.headers.get("prefer"))
        assert request.url.query == b"question=00"
        if len(waits) < 2:
            return httpx.Response(202, json=told)
        return httpx.Response(200, json={**told, "outputs": {"y": 1.0}})

    async with gateway_of(answers) as client:
        event = await client.submit("water", {"x": 1.0}, key="a")
        assert event == Event("water", "a", "fourways-1", "/predictions/water/a?question=00")
        assert isinstance(event, Event)
        assert (await client.wait(event, 60)).value == 1.0
        waits.clear()
        with pytest.raises(PredictionPending):
            await client.wait(event, 0)
    assert waits == [None]


async def test_credentials_are_read_when_they_are_sent(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def answers(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json=DESCRIBED)

    token = tmp_path / "token"
    async with gateway_of(answers, token_file=token) as client:
        for text in ("one", "two\n"):
            token.write_text(text)
            client._known.clear()
            await client.describe("water")
    async with gateway_of(answers, api_key="k") as client:
        await client.describe("water")
    assert seen == ["Bearer one", "Bearer two", "Bearer k"]


def test_the_key_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURWAYS_API_KEY", "from-environment")
    with Client("http://gateway") as client:
        assert client._settings.api_key == "from-environment"


@pytest.mark.parametrize("url", ["gateway:8080", "", "ftp://gateway"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a gateway"):
        Client(url)


def test_missing_values_of_columns_are_null() -> None:
    assert columns_of([{"a": 1}, {"b": 2}]) == {"a": [1, None], "b": [None, 2]}
    with pytest.raises(TypeError, match="rows are"):
        columns_of(7)
