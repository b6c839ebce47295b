"""What the clients do, step by step, without sending anything.

Each function is a generator: it yields the calls to send, gets the response of each, and returns
the result. :class:`fourways.Client` and :class:`fourways.AsyncClient` send the calls, so that what
they do is written once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, MutableMapping
from typing import Any, TypeAlias, TypeVar

import httpx

from . import calls
from .calls import Call
from .prediction import Event, Json, Key, Prediction, of_inference, of_lookup
from .tensors import Rows, columns_of, frame_like, key_name, keys_in, tensors

T = TypeVar("T")
Flow: TypeAlias = Generator[Call, httpx.Response, T]
Known: TypeAlias = MutableMapping[str, Json]
"""Descriptions of deployments by name."""


def describe(known: Known, deployment: str) -> Flow[Json]:
    """Return the description of a deployment, requested once."""
    if deployment not in known:
        known[deployment] = (yield calls.metadata(deployment)).json()
    return known[deployment]


def predict(
    known: Known, deployment: str, inputs: Json | None, key: Key | None, wait: float
) -> Flow[Prediction]:
    """Return the prediction for one entity."""
    if inputs is None:
        if key is None:
            raise ValueError("a prediction needs inputs, a key, or both")
        answer = yield calls.lookup(deployment, key, wait)
        if answer.status_code == 202:
            raise calls.error_of(202, answer.json())
        return of_lookup(answer.json())
    found = yield from submit(known, deployment, inputs, key, wait, None)
    if isinstance(found, Prediction):
        return found
    return (yield from await_event(found, 0.0))


def predict_many(
    known: Known, deployment: str, rows: Rows, keys: list[Key] | None, chunk: int
) -> Flow[Any]:
    """Return the predictions for many rows or keys."""
    described = yield from describe(known, deployment)
    columns = columns_of(rows) if rows is not None else {}
    if keys is not None:
        columns = {key_name(described): list(keys), **columns}
    parameters = {"allow_missing": True} if rows is None else None
    found: list[Prediction | None] = []
    for start in range(0, max(map(len, columns.values()), default=0), chunk):
        part = {name: values[start : start + chunk] for name, values in columns.items()}
        answer = yield calls.infer(deployment, tensors(part, described), parameters)
        if answer.status_code == 202:
            raise calls.error_of(202, answer.json())
        found += of_inference(answer.json(), keys_in(part, described))
    return frame_like(rows, found) if rows is not None else found


def submit(
    known: Known,
    deployment: str,
    inputs: Json,
    key: Key | None,
    wait: float,
    idempotency_key: str | None,
) -> Flow[Prediction | Event]:
    """Return the prediction of a record, or the event that it will come from."""
    if not isinstance(inputs, Mapping):
        raise TypeError("inputs are a mapping from names to values; predict_many takes rows")
    described = yield from describe(known, deployment)
    columns = {name: [value] for name, value in inputs.items()}
    if key is not None:
        columns[key_name(described)] = [key]
    made = tensors(columns, described)
    answer = yield calls.infer(deployment, made, wait=wait, idempotency_key=idempotency_key)
    if answer.status_code == 202:
        return calls.event_of(answer.json(), answer.headers["location"])
    (found,) = of_inference(answer.json(), keys_in(columns, described))
    assert found is not None, "a record that is scored has a prediction"  # noqa: S101
    return found


def await_event(event: Event, seconds: float) -> Flow[Prediction]:
    """Return the prediction of an event. Raises PredictionPending after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        answer = yield calls.at(event.location, left)
        if answer.status_code == 200:
            return of_lookup(answer.json())
        if left <= 0:
            raise calls.error_of(202, answer.json())
