"""What a backend asks the gateway, and how the answers are shown."""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Column, Table

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ARTIFACTS = EXAMPLES / "artifacts"
CLAIM = "fourways-examples"
KEYS_SHOWN = 3

# A log is as wide as the table needs; a terminal folds.
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 118)

Json = dict[str, Any]


def manifests() -> list[Path]:
    """Return the examples' manifests."""
    return sorted(EXAMPLES.glob("*.yaml"))


def ask_all(url: str, only: str | None = None) -> list[tuple[str, Json]]:
    """Ask the gateway for a few predictions of each example, or of one, by the V2 protocol.

    Returns (deployment, V2 answer with the keys asked) pairs.

    Raises:
        httpx.HTTPError: a question was not answered.

    """
    answers = []
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        for path in manifests():
            document = yaml.safe_load(path.read_text())
            name, key = document["metadata"]["name"], document["spec"]["contract"]["entityKey"]
            if only not in (None, name):
                continue
            keys = _some_keys(document)
            tensor = {
                "name": key["name"],
                "datatype": "INT64" if key.get("type") == "int64" else "BYTES",
                "shape": [len(keys)],
                "data": keys,
            }
            response = client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]})
            response.raise_for_status()
            answers.append((name, response.json() | {"keys": keys}))
    return answers


def show(url: str) -> None:
    """Print the answers as a table, and the question a person can repeat."""
    table = Table(
        "deployment",
        "version",
        Column("key", overflow="fold"),
        Column("prediction", overflow="fold"),
        "age",
        title=f"answers of {url}",
    )
    for name, answer in ask_all(url):
        age = f"{answer['parameters']['age_seconds']:.0f} s"
        for row, key in enumerate(answer["keys"]):
            outputs = {o["name"]: o["data"][row] for o in answer["outputs"]}
            table.add_row(name, answer["model_version"], str(key), _in_words(outputs), age)
    console.print(table)


def example_path() -> str:
    """Return the path of a prediction a person can look at."""
    document = yaml.safe_load((EXAMPLES / "churn.yaml").read_text())
    return f"/predictions/churn/{_some_keys(document)[0]}"


def _some_keys(document: Json) -> list[Any]:
    """Return the first entity keys of an example's source that keep its contract."""
    source = document["spec"]["batch"]["source"]["uri"].removeprefix(f"pvc://{CLAIM}/")
    column = document["spec"]["contract"]["entityKey"]["name"]
    path = ARTIFACTS / source
    if path.suffix == ".parquet":
        keys = pq.read_table(path, columns=[column]).column(column).to_pylist()
    else:
        with path.open() as lines:
            keys = [row[column] for row in csv.DictReader(lines)]
    # Spread over the table, so that the answers differ.
    step = max(1, len(keys) // KEYS_SHOWN)
    return list(itertools.islice(keys, 0, None, step))[:KEYS_SHOWN]


def _in_words(outputs: Json) -> str:
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in outputs.items()
    )
