"""The requests that backends and devices send in the demo, and the table of results, one line each.

Each request is sent the way the mode is used in production: a lookup by key, a request with the
current basket, a reading that becomes an event, a file on a device without a network.
"""

from __future__ import annotations

import csv
import itertools
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import httpx
import pyarrow.json as pj
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Column, Table

from fourways_cli.targets import API_KEY_VARIABLE

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ARTIFACTS = EXAMPLES / "artifacts"
CLAIM = "fourways-examples"
SHOP_SECRET = "shop-database"  # noqa: S105  (a name)
SHOWN = ("churn", "come-back", "water-flow", "file-type-on-device")
"""One example per mode, which the demo runs."""

KEYS_SHOWN = 3
WAIT_SECONDS = 20
TRIES = 10

# A log is as wide as the table needs; a terminal wraps.
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """A request and its result."""

    mode: str
    deployment: str
    question: str
    answer: str
    milliseconds: float


def manifests(mode: str | None = None) -> list[Path]:
    """Return the examples' manifests, of one mode or of all."""
    return [p for p in sorted(EXAMPLES.glob("*.yaml")) if mode in (None, mode_of(p))]


def shown() -> list[Path]:
    """Return the manifests of the demo."""
    return [EXAMPLES / f"{name}.yaml" for name in SHOWN]


def mode_of(manifest: Path) -> str:
    """Return the effective mode of a manifest."""
    spec = document_of(manifest)["spec"]
    # The only example that leaves the mode to the decision tree is batch.
    return "batch" if spec["mode"] == "auto" else str(spec["mode"])


def document_of(manifest: Path) -> Json:
    """Return a manifest's document."""
    document: Json = yaml.safe_load(manifest.read_text())
    return document


def ask_all(url: str, only: str | None = None) -> list[tuple[str, Json]]:
    """Query the gateway for a few predictions of each batch example, or of one, with the V2
    protocol.

    Returns (deployment, V2 response with the requested keys) pairs.

    Raises:
        httpx.HTTPError: a request failed.
    """
    answers = []
    with _client(url) as client:
        for path in manifests("batch"):
            document = document_of(path)
            name, key = document["metadata"]["name"], document["spec"]["contract"]["entityKey"]
            if only not in (None, name):
                continue
            keys = _some_keys(document)
            datatype = "INT64" if key.get("type") == "int64" else "BYTES"
            question = {"inputs": [tensor(key["name"], datatype, keys)]}
            response = client.post(f"/v2/models/{name}/infer", json=question)
            response.raise_for_status()
            answers.append((name, response.json() | {"keys": keys}))
    return answers


# ------------------------------------------------------------- one request per mode


def ask_batch(url: str) -> Answered:
    """Look up a customer, as scored by the last run."""
    name, key = "churn", "01760"
    place = f"/predictions/{name}/{key}"
    with _client(url) as client:
        _json(_ask(client, "GET", place))  # the first request opens connections
        began = perf_counter()
        found = _json(_ask(client, "GET", place))
    return _answered("batch", name, f"GET {place}", found["outputs"], began)


def ask_realtime(url: str) -> Answered:
    """Send a basket; the shop's database has the customer's data."""
    name, customer, dollars, discs = "come-back", "01760", 24.5, 2
    question = {
        "inputs": [
            tensor("customer_id", "BYTES", [customer]),
            tensor("basket_dollars", "FP32", [dollars]),
            tensor("basket_discs", "INT32", [discs]),
        ]
    }
    with _client(url) as client:
        _json(_ask(client, "POST", f"/v2/models/{name}/infer", json=question))
        began = perf_counter()
        found = _json(_ask(client, "POST", f"/v2/models/{name}/infer", json=question))
    told = f"POST infer: {customer} buys {discs} CDs for ${dollars}"
    return _answered("realtime", name, told, _outputs(found), began)


def ask_stream(url: str) -> Answered:
    """Request a prediction for a reading that was never sent: it becomes an event; wait for the
    result."""
    name = "water-flow"
    key, tensors = reading()
    with _client(url) as client:
        began = perf_counter()
        taken = _ask(client, "POST", f"/v2/models/{name}/infer", json={"inputs": tensors})
        if taken.status_code != HTTPStatus.ACCEPTED:
            raise RuntimeError(f"{name}: {taken.status_code} instead of 202 for the event")
        place = taken.headers["location"]
        found = _json(_ask(client, "GET", place, headers={"Prefer": f"wait={WAIT_SECONDS}"}))
    told = f"POST infer: reading {key} → 202; GET its Location"
    return _answered("streaming", name, told, found["outputs"], began)


def reading(hour: str = "2022-04-27T16Z") -> tuple[str, list[Json]]:
    """Return a reading of the water main with the previous 72: key and V2 inputs."""
    rows = pq.read_table(ARTIFACTS / "water-flow" / "series.parquet").to_pylist()
    place = next(i for i, row in enumerate(rows) if row["reading"] == hour)
    before = [row["flow"] for row in rows[place - 72 : place]]
    row = rows[place]
    return row["reading"], [
        tensor("reading", "BYTES", [row["reading"]]),
        tensor("hour", "INT32", [row["hour"]]),
        tensor("flow", "FP32", [row["flow"]]),
        tensor("before", "FP32", before, [1, 72]),
    ]


def show(answers: Iterable[Answered]) -> None:
    """Print results as a table."""
    table = Table(
        "mode", "deployment", "request", "prediction", Column("ms", justify="right"), box=None
    )
    for answered in answers:
        table.add_row(
            answered.mode,
            answered.deployment,
            answered.question,
            answered.answer,
            f"{answered.milliseconds:.1f}",
        )
    console.print(table)


# ------------------------------------------------------------- requests and output


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> Json:
    """Return a tensor of the V2 protocol."""
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def _client(url: str) -> httpx.Client:
    key = os.environ.get(API_KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, timeout=WAIT_SECONDS + 10, trust_env=False, headers=headers)


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Send a request as a backend does: after a 503, retry after a second."""
    for _ in range(TRIES):
        response = client.request(method, path, **options)
        if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            break
        sleep(1)
    return response


def _json(response: httpx.Response) -> Json:
    """Return a server's response. Raises RuntimeError with its message if the request failed."""
    body: Json = response.json() if response.content else {}
    if response.status_code != HTTPStatus.OK:
        raise RuntimeError(f"{response.request.url}: {response.status_code} {body.get('error')}")
    return body


def _outputs(answer: Json) -> Json:
    """Return the first row of a V2 response."""
    return {output["name"]: output["data"][0] for output in answer["outputs"]}


def _answered(mode: str, deployment: str, question: str, outputs: Json, began: float) -> Answered:
    taken = 1000 * (perf_counter() - began)
    return Answered(mode, deployment, question, in_words(outputs), taken)


def in_words(outputs: Json) -> str:
    """Return outputs in readable form."""
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in outputs.items()
    )


def _some_keys(document: Json) -> list[Any]:
    """Return the first entity keys of an example's source whose rows keep the contract."""
    source = document["spec"]["batch"]["source"]["uri"].removeprefix(f"pvc://{CLAIM}/")
    column = document["spec"]["contract"]["entityKey"]["name"]
    path = ARTIFACTS / source
    if path.suffix == ".parquet":
        keys = pq.read_table(path, columns=[column]).column(column).to_pylist()
    elif path.suffix == ".jsonl":
        keys = pj.read_json(path).column(column).to_pylist()
    else:
        with path.open() as lines:
            keys = [row[column] for row in csv.DictReader(lines)]
    # Spread over the table, so that the predictions differ.
    step = max(1, len(keys) // KEYS_SHOWN)
    return list(itertools.islice(keys, 0, None, step))[:KEYS_SHOWN]
