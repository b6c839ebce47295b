"""Features from a feature server of Feast itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fourways_api import EntityKey, Paths
from fourways_api.modes import FeatureLookup
from fourways_cli.embedded.ports import free_port
from fourways_runtime.errors import FeaturesMismatch
from fourways_runtime.io.feature_store import open_features
from fourways_runtime.io.feature_store.coalesced import CoalescedFeatures
from tests.kit.people import FIELDS
from tests.kit.secret_files import secret_folder
from tests.kit.waiting import until
from tools.servers.feast import feast_program, make_repository

# tests/unit/test_feature_feast.py has its answers; this makes an environment of 100 packages.
pytestmark = [pytest.mark.embedded, pytest.mark.long, pytest.mark.timeout(600)]

DEFINITIONS = """
from datetime import UTC, datetime, timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Int64, String

person = Entity(name="person", join_keys=["id"], value_type=ValueType.STRING)
people = FeatureView(
    name="people_view",
    entities=[person],
    ttl=timedelta(days=36500),
    source=FileSource(path="people.parquet", timestamp_field="at"),
    schema=[
        Field(name="id", dtype=String),
        Field(name="age", dtype=Int64),
        Field(name="spend", dtype=Float32),
        Field(name="seen", dtype=Bool),
        Field(name="word", dtype=String),
        Field(name="grid", dtype=Array(Float32)),
    ],
)
service = FeatureService(name="people", features=[people])
if __name__ == "__main__":
    import pandas as pd

    table = {
        "id": ["ann", "bob"],
        "age": pd.array([30, None], "Int64"),
        "spend": [1.5, 2.5],
        "seen": [True, False],
        "word": ["ü", None],
        "grid": [[1.0, 2.5], [3.0, 4.0]],
        "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
    }
    pd.DataFrame(table).to_parquet("people.parquet")
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("feast")
    make_repository(folder, DEFINITIONS)
    port = free_port()
    command = [feast_program(), "serve", "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    until(
        lambda: httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success,
        "Feast answers",
        seconds=120,
        ignoring=httpx.TransportError,
    )
    yield port
    process.terminate()
    process.wait(30)


async def test_rows_are_those_of_the_online_store(port: int, tmp_path: Path) -> None:
    secret_folder(tmp_path / "secrets" / "crm", uri=f"feast://127.0.0.1:{port}")

    def opened(key: str = "id", service: str = "people") -> CoalescedFeatures:
        lookup = {"database": {"secretName": "crm"}, "table": service, "timeout": "10s"}
        return open_features(
            FeatureLookup.model_validate(lookup),
            EntityKey(name=key),
            tuple(field.name for field in FIELDS),
            Paths(secrets_root=str(tmp_path / "secrets")),
            fields=FIELDS,
        )

    features = opened()
    await features.check()
    await features.ping()
    found = await features.fetch(["ann", "nobody", "bob"])
    assert found == {
        "ann": {"age": 30, "spend": 1.5, "seen": True, "word": "ü", "grid": [1.0, 2.5]},
        "bob": {"age": None, "spend": 2.5, "seen": False, "word": None, "grid": [3.0, 4.0]},
    }
    await features.close()
    for wrong in (opened(key="person_id"), opened(service="nobodies")):
        with pytest.raises(FeaturesMismatch, match="Feast says"):
            await wrong.check()
        await wrong.close()
