"""Tables read from, and predictions written to, a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_api.modes import Sink as SinkSpec
from fourways_runtime.errors import FetchRefused, SinkUnavailable, SourceError
from fourways_runtime.io.sinks import open_sink
from fourways_runtime.io.sources import open_table
from fourways_runtime.scoring.columns import Predictions
from tests.kit.s3_rig import s3_client, s3_secret, s3_server

pytestmark = pytest.mark.embedded

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "score", "type": "float32"}],
        "outputs": [{"name": "score", "type": "float32"}],
    }
)
POLICY = FetchPolicy(timeout_seconds=20)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server("tables") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint: str) -> Any:
    return s3_client(endpoint)


@pytest.fixture
def paths(tmp_path: Path, endpoint: str) -> Paths:
    s3_secret(tmp_path / "secrets" / "s3", endpoint)
    return Paths(secrets_root=str(tmp_path / "secrets"))


def source(paths: Paths, uri: str, form: str = "Parquet", **filters: list[str]) -> Any:
    chosen = [{"column": name, "values": values} for name, values in filters.items()]
    told = {"uri": uri, "format": form, "filter": chosen, "credentials": {"secretName": "s3"}}
    return open_table(BatchSource.model_validate(told), CONTRACT, policy=POLICY, paths=paths)


def keys(table: Any, splits: Any) -> list[str]:
    return [
        key
        for split in splits
        for chunk in table.read(split)
        for key in chunk.batch.column("id").to_pylist()
    ]


def put(client: Any, name: str, names: list[str]) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": names, "score": [0.5] * len(names)}), buffer)
    client.put_object(Bucket="tables", Key=name, Body=buffer.getvalue().to_pybytes())


def test_partitions_of_a_bucket_are_read_and_a_changed_object_is_noticed(
    paths: Paths, client: Any
) -> None:
    for day in ("1", "2"):
        for part in range(3):
            put(client, f"in/day={day}/part-{part}.parquet", [f"{day}{part}"])
    for uri in ("s3://tables/in", "s3://tables/in/day=*/*.parquet"):
        table = source(paths, uri, day=["2"])
        assert keys(table, table.splits(10)) == ["20", "21", "22"]
    table = source(paths, "s3://tables/in")
    splits = table.splits(10)
    assert len(splits) == 6
    # Of the same size, within the same second: only the tag is another.
    put(client, "in/day=1/part-1.parquet", ["xx"])
    with pytest.raises(SourceError, match=r"part-1\.parquet: changed while it was read"):
        keys(source(paths, "s3://tables/in"), splits)
    client.delete_object(Bucket="tables", Key="in/day=1/part-0.parquet")
    with pytest.raises(SourceError, match=r"part-0\.parquet: no longer exists"):
        keys(source(paths, "s3://tables/in"), splits)


def sink(paths: Paths, form: str, run: str, prefix: str, policy: FetchPolicy = POLICY) -> Any:
    told = {
        "files": {
            "uri": f"s3://tables/{prefix}",
            "format": form,
            "credentials": {"secretName": "s3"},
        }
    }
    made = open_sink(SinkSpec.model_validate(told), CONTRACT, run, policy=policy, paths=paths)
    made.begin()
    return made


def written(made: Any, number: int, names: list[str], attempt: int = 0) -> str:
    chunk = made.chunk(number, attempt)
    count = len(names)
    columns = {"score": np.full(count, 0.25, np.float32)}
    chunk.write(Predictions(np.array(names, object), np.arange(count), columns))
    return str(chunk.finish())


@pytest.mark.parametrize("form", ["Parquet", "Delta"])
def test_a_run_is_published_to_a_bucket_whole_and_read_back(
    paths: Paths, client: Any, form: str
) -> None:
    prefix = f"out-{form.lower()}"
    for run in ("r1", "r2"):
        made = sink(paths, form, run, prefix)
        receipts = {at: written(made, at, [f"{run}-{at}", "same"]) for at in range(3)}
        written(made, 0, ["never"], attempt=1)
        before = seen(paths, client, form, prefix)
        assert "never" not in before
        assert not [name for name in before if name.startswith(run)]
        made.publish(receipts)
        made.publish(receipts)
        assert sorted(seen(paths, client, form, prefix)) == [f"{run}-{at}" for at in range(3)] + [
            "same"
        ]


def seen(paths: Paths, client: Any, form: str, prefix: str) -> list[str]:
    uri = f"s3://tables/{prefix}"
    if form == "Delta":
        table = source(paths, uri, "Delta")
        try:
            return keys(table, table.splits(100))
        except SourceError:
            return []
    try:
        pointer = client.get_object(Bucket="tables", Key=f"{prefix}/_latest")["Body"].read()
    except client.exceptions.NoSuchKey:
        return []
    table = source(paths, f"{uri}/{orjson.loads(pointer)['path']}")
    return keys(table, table.splits(100))


def test_two_who_commit_at_once_do_not_lose_one_another(
    paths: Paths, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (sink(paths, "Delta", run, "race") for run in ("a", "b"))
    receipts = {0: written(first, 0, ["a"])}
    others = {0: written(second, 0, ["b"])}
    real = type(first._place).put
    raced = []

    def slow(place: Any, name: str, data: bytes, *, new: bool = False) -> bool:
        if new and not raced:
            raced.append(name)
            second.publish(others)
        return bool(real(place, name, data, new=new))

    monkeypatch.setattr(type(first._place), "put", slow)
    first.publish(receipts)
    names = [
        found["Key"].rpartition("/")[2]
        for found in client.list_objects_v2(Bucket="tables", Prefix="race/_delta_log/")["Contents"]
    ]
    assert names == [f"{version:020}.json" for version in range(2)]
    table = source(paths, "s3://tables/race", "Delta")
    assert keys(table, table.splits(10)) == ["a"]


def test_a_bucket_the_policy_forbids_or_that_is_not_there(paths: Paths) -> None:
    with pytest.raises(FetchRefused):
        sink(paths, "Parquet", "r", "x", FetchPolicy(hosts=("elsewhere.example",)))
    told = {"files": {"uri": "s3://no-such-bucket/x", "credentials": {"secretName": "s3"}}}
    made = open_sink(SinkSpec.model_validate(told), CONTRACT, "r", policy=POLICY, paths=paths)
    with pytest.raises(SinkUnavailable, match="s3://no-such-bucket/x"):
        made.begin()
