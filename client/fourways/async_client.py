"""The client for code on an event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from . import calls, flows
from .prediction import Event, Json, Key, Prediction
from .tensors import Rows

T = TypeVar("T")


class AsyncClient:
    """Asks the gateway of a namespace, on an event loop: :class:`fourways.Client` for asyncio.

    Args:
        url: Of the gateway, such as ``http://fourways-gateway.NAMESPACE.svc``.
        api_key: Of this caller; by default ``FOURWAYS_API_KEY``.
        token_file: File with a ServiceAccount token, which is read again for each request.
        timeout: Maximum time for an answer, in seconds, without what a method waits for.
        attempts: Maximum number of times that a request is sent if the gateway is not available.

    Methods raise a :class:`fourways.FourwaysError` that says whose fault it is.

    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        token_file: str | Path | None = None,
        timeout: float = 10.0,
        attempts: int = 4,
    ) -> None:
        self._settings = calls.settings(url, api_key, token_file, timeout, attempts)
        self._http = httpx.AsyncClient(base_url=self._settings.url)
        self._known: dict[str, Json] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def describe(self, deployment: str) -> Json:
        """Return the inputs and outputs of a deployment, as the protocol describes a model."""
        return await self._run(flows.describe(self._known, deployment))

    async def predict(
        self,
        deployment: str,
        inputs: Json | None = None,
        *,
        key: Key | None = None,
        wait: float = 0.0,
    ) -> Prediction:
        """Return the prediction for one entity.

        With ``key`` alone, the stored prediction is looked up, or the record's features are. With
        ``inputs``, the record is scored: at once, or as an event if the deployment is a stream.
        ``wait`` is the number of seconds to wait for a prediction that is still made.
        """
        return await self._run(flows.predict(self._known, deployment, inputs, key, wait))

    async def predict_many(
        self, deployment: str, rows: Rows = None, *, keys: list[Key] | None = None, chunk: int = 500
    ) -> Any:
        """Return the predictions for many rows, or for many keys.

        ``rows`` is a list of mappings, a mapping of columns, or a data frame of pandas or polars; a
        data frame is answered with one of its kind, in its order. For ``keys`` alone the result is
        a list, with None for a key without a prediction. ``chunk`` is the number of rows in one
        request.
        """
        return await self._run(flows.predict_many(self._known, deployment, rows, keys, chunk))

    async def submit(
        self,
        deployment: str,
        inputs: Json,
        *,
        key: Key | None = None,
        idempotency_key: str | None = None,
    ) -> Prediction | Event:
        """Send a record, and return its prediction, or the event that it will come from.

        Only streams answer with an event: pass it to :meth:`wait`. Records that are sent with the
        same ``idempotency_key`` are one event.
        """
        return await self._run(
            flows.submit(self._known, deployment, inputs, key, 0.0, idempotency_key)
        )

    async def wait(self, event: Event, seconds: float = 30.0) -> Prediction:
        """Wait for the prediction of an event.

        Raises PredictionPending after ``seconds``, EventRefused if it became a dead letter.
        """
        return await self._run(flows.await_event(event, seconds))

    async def _run(self, flow: flows.Flow[T]) -> T:
        try:
            call = next(flow)
            while True:
                call = flow.send(await self._answered(call))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _answered(self, call: calls.Call) -> httpx.Response:
        """Send a call until it is answered. Raises FourwaysError."""
        for attempt in range(1, self._settings.attempts + 1):
            answer: httpx.Response | httpx.TransportError
            try:
                answer = await self._http.request(**self._settings.request(call))
            except httpx.TransportError as error:
                answer = error
            pause = self._settings.pause_after(answer, attempt)
            if pause is None:
                break
            await asyncio.sleep(pause)
        return self._settings.accepted(answer)
