"""A Secret is used only for the deployments and hosts that it lists itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourways_api import EntityKey, FetchPolicy, Paths, SecretReference, StreamSource
from fourways_api.audience import host_is_listed, listed, lists_deployment
from fourways_api.modes import FeatureLookup, SourceQuery
from fourways_runtime.errors import SecretRefused
from fourways_runtime.io.brokers.registry import open_publisher
from fourways_runtime.io.feature_store import open_features
from fourways_runtime.io.fetch import fetch
from fourways_runtime.io.fetch.filesystems import filesystem
from fourways_runtime.io.mounted_secret import MountedSecret
from fourways_runtime.io.postgres.user_database import UserDatabase
from fourways_runtime.io.sources.query_table import FetchFailed, SourceError
from fourways_runtime.workloads.edge.signing import signing_key
from tests.kit.edge_plane import key_pair
from tests.kit.fetch_servers import serving, status
from tests.kit.secret_files import secret_folder


def paths(root: Path, deployment: str = "mine") -> Paths:
    return Paths(secrets_root=str(root)).of(deployment)


@pytest.mark.parametrize(
    ("host", "port", "entries", "expected"),
    [
        ("models.example", 443, "models.example", True),
        ("MODELS.example.", 443, "models.example", True),
        ("models.example", 443, "other.example, models.example", True),
        ("models.example", 443, "models.example:443", True),
        ("models.example", 8443, "models.example:443", False),
        ("models.example", None, "models.example:443", False),
        ("a.models.example", 443, "*.models.example", True),
        ("models.example", 443, "*.models.example", False),
        ("evilmodels.example", 443, "*.models.example", False),
        ("models.example.evil", 443, "models.example", False),
        ("models.example", 443, "*", False),
        ("127.0.0.1", 443, "*.0.0.1", False),
        ("models.example", 443, "", False),
        ("::1", 443, "::1", True),
        ("::1", 443, "[::1]:443", True),
        ("::1", 80, "[::1]:443", False),
        ("::2", 443, "::1", False),
    ],
)
def test_the_hosts_of_an_audience(
    host: str, port: int | None, entries: str, expected: bool
) -> None:
    assert host_is_listed(host, port, listed(entries)) is expected


@pytest.mark.parametrize(
    ("deployment", "entries", "expected"),
    [
        ("mine", "mine", True),
        ("mine", "other\nmine", True),
        ("mine", "*", True),
        ("mine", "mine2", False),
        ("mine", "m*", False),
        ("mine", "", False),
        ("", "mine", False),
    ],
)
def test_the_deployments_of_an_audience(deployment: str, entries: str, expected: bool) -> None:
    assert lists_deployment(listed(entries), deployment) is expected


@pytest.mark.parametrize("keys", [{"token": "CANARY"}, {"username": "u", "password": "CANARY"}])
@pytest.mark.parametrize(
    ("deployments", "hosts", "said"),
    [
        (
            "",
            "127.0.0.1",
            "not for the deployment mine: its key fourways.dev-deployments lists no",
        ),
        ("other", "127.0.0.1", "lists other"),
        ("mine", "", "not sent to 127.0.0.1:[0-9]+: its key fourways.dev-hosts lists none"),
        ("mine", "models.example", "lists models.example"),
    ],
)
def test_a_stranger_receives_nothing(
    tmp_path: Path, keys: dict[str, str], deployments: str, hosts: str, said: str
) -> None:
    folder = secret_folder(tmp_path / "other", deployments, hosts, **keys)
    with serving(status(404, b"")) as stranger:
        for uri in (f"{stranger.url}/m.onnx",):
            with pytest.raises(SecretRefused, match=said) as model:
                fetch(
                    uri,
                    into=tmp_path / "cache",
                    digest=None,
                    max_bytes=10,
                    policy=FetchPolicy(),
                    paths=paths(tmp_path),
                    credentials=folder,
                )
            with pytest.raises(SecretRefused, match=said) as table:
                filesystem(uri, credentials=folder, policy=FetchPolicy(), paths=paths(tmp_path))
        assert stranger.requests == []
    assert "CANARY" not in f"{model.value} {table.value}"
    assert "fourways secret create" in str(model.value)


def test_the_listed_host_receives_it(tmp_path: Path) -> None:
    folder = secret_folder(tmp_path / "login", "mine", "127.0.0.1", token="t")
    with serving(status(404, b"")) as server, pytest.raises(SourceError):
        fetch(
            f"{server.url}/m",
            into=tmp_path / "cache",
            digest=None,
            max_bytes=10,
            policy=FetchPolicy(),
            paths=paths(tmp_path),
            credentials=folder,
        )
    assert server.requests


@pytest.mark.parametrize(
    "told",
    [
        {"kafka": {"bootstrapServers": "kafka.example:9092,evil.example:9092", "topic": "t"}},
        {"nats": {"servers": "nats://kafka.example,nats://evil.example", "stream": "S"}},
    ],
)
async def test_every_broker_of_the_list_must_be_listed(tmp_path: Path, told: dict) -> None:
    secret_folder(tmp_path / "broker", "mine", "kafka.example")
    for block in told.values():
        if "stream" in block:
            block["subject"] = "s"
        block["credentials"] = {"secretName": "broker"}
    publisher = open_publisher(StreamSource.model_validate(told), paths(tmp_path))
    with pytest.raises(SecretRefused, match=r"evil\.example"):
        await publisher.publish(b"k", b"{}", {})
    await publisher.close()


def test_a_database_is_opened_for_the_listed_deployments(tmp_path: Path) -> None:
    secret_folder(tmp_path / "db", "other", uri="postgresql://u:CANARY@db.example/d")
    query = SourceQuery.model_validate({"database": {"secretName": "db"}, "sql": "SELECT 1"})
    database = UserDatabase(
        query.database,
        paths(tmp_path),
        "the source database",
        unavailable=FetchFailed,
        refused=SourceError,
        policy=FetchPolicy(),
    )
    with pytest.raises(SecretRefused, match="not for the deployment mine"):
        database.connect()


async def test_features_are_looked_up_for_the_listed_deployments(tmp_path: Path) -> None:
    secret_folder(tmp_path / "db", "other", uri=f"sqlite:///{tmp_path}/x.db")
    lookup = FeatureLookup.model_validate({"database": {"secretName": "db"}, "table": "t"})
    with pytest.raises(SecretRefused, match="not for the deployment mine"):
        open_features(lookup, EntityKey(name="id", type="string"), ["x"], paths(tmp_path))


def test_a_signing_key_signs_for_the_listed_deployments(tmp_path: Path) -> None:
    folder = secret_folder(tmp_path / "key", "other")
    (folder / "signing-key.pem").write_bytes(key_pair()[0])
    with pytest.raises(SecretRefused, match="not for the deployment mine"):
        signing_key(SecretReference(secret_name="key"), paths(tmp_path))
    assert signing_key(SecretReference(secret_name="key"), paths(tmp_path, "other"))


def test_a_rotated_audience_is_read_again(tmp_path: Path) -> None:
    secret = MountedSecret(secret_folder(tmp_path / "db", "mine"), "mine")
    secret.for_deployment()
    secret_folder(tmp_path / "db", "other")
    with pytest.raises(SecretRefused, match="lists other"):
        secret.for_deployment()
