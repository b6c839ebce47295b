"""Features in hashes of a real Redis: typed values, absent keys, faults, a rotated password."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from fourways_api import EntityKey, FetchPolicy, Paths
from fourways_api.modes import FeatureLookup
from fourways_cli.embedded.ports import free_port
from fourways_runtime.errors import (
    ConfigError,
    FeaturesUnavailable,
    FetchRefused,
)
from fourways_runtime.io.feature_store import open_features
from fourways_runtime.io.feature_store.coalesced import CoalescedFeatures
from tests.kit.people import FIELDS
from tests.kit.secret_files import secret_folder
from tests.kit.waiting import until
from tools.cluster.errors import ClusterError
from tools.servers.redis import redis_server

pytestmark = pytest.mark.embedded

NAMES = tuple(field.name for field in FIELDS)
TEXT = EntityKey(name="id")
ANN = {"age": 30, "spend": "1.5", "seen": "true", "word": "ü", "grid": "[1, 2.5]"}


@dataclass
class Server:
    """A server with a password, and a client that fills it."""

    port: int
    process: subprocess.Popen[bytes]
    password: str = "first"

    @property
    def uri(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        return redis.Redis.from_url(self.uri)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        program = redis_server()
    except ClusterError as error:
        pytest.skip(f"no Redis here: {error}")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--requirepass", "first", "--save", ""]
    folder = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen([program, *options, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    started = Server(port, process)
    until(lambda: started.client().ping(), "Redis answers", ignoring=redis.ConnectionError)
    client = started.client()
    client.hset("people:ann", mapping=ANN)
    client.hset("people:12", mapping={"age": "x", "seen": 0})
    client.set("people:text", "not a hash")
    yield started
    process.terminate()
    process.wait(20)


@asynccontextmanager
async def opened(
    server: Server, folder: Path, key: EntityKey = TEXT, **more: Any
) -> AsyncIterator[CoalescedFeatures]:
    secret_folder(folder / "secrets" / "crm", uri=server.uri)
    lookup = {"database": {"secretName": "crm"}, "table": "people", "timeout": "2s"}
    features = open_features(
        FeatureLookup.model_validate(lookup | more.pop("lookup", {})),
        key,
        NAMES,
        Paths(secrets_root=str(folder / "secrets")),
        fields=FIELDS,
        **more,
    )
    try:
        yield features
    finally:
        await features.close()


async def test_values_are_read_as_the_contract_declares_them(
    server: Server, tmp_path: Path
) -> None:
    async with opened(server, tmp_path) as features:
        await features.check()
        found = await features.fetch(["ann", "nobody", "12"])
        assert found["ann"] == {
            "age": 30,
            "spend": 1.5,
            "seen": True,
            "word": "ü",
            "grid": [1, 2.5],
        }
        assert "nobody" not in found
        # What does not fit stays as it is: the contract check names it.
        assert (found["12"]["age"], found["12"]["seen"], found["12"]["word"]) == ("x", False, None)
    async with opened(server, tmp_path, EntityKey(name="id", type="int64")) as features:
        assert (await features.fetch([12]))[12]["seen"] is False


async def test_what_is_no_hash_is_named(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path) as features:
        with pytest.raises(FeaturesUnavailable, match="people: is not a hash"):
            await features.fetch(["text"])


async def test_a_rotated_password_is_read_again(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path) as features:
        assert "ann" in await features.fetch(["ann"])
        admin = server.client()
        admin.config_set("requirepass", "second")
        server.password = "second"
        admin.client_kill_filter(skipme=False, _type="normal")
        with pytest.raises(FeaturesUnavailable) as refused:
            await features.fetch(["ann"])
        assert "first" not in str(refused.value)
        secret_folder(tmp_path / "secrets" / "crm", uri=server.uri)
        assert "ann" in await features.fetch(["ann"])
    server.client().config_set("requirepass", "first")
    server.password = "first"


async def test_a_server_that_stands_still_is_unavailable_in_time(
    server: Server, tmp_path: Path
) -> None:
    async with opened(server, tmp_path, lookup={"timeout": "200ms"}) as features:
        assert "ann" in await features.fetch(["ann"])
        server.process.send_signal(19)
        try:
            with pytest.raises(FeaturesUnavailable):
                await features.ping()
        finally:
            server.process.send_signal(18)
        assert "ann" in await features.fetch(["ann"])


@pytest.mark.parametrize(
    ("uri", "lookup", "error", "says"),
    [
        ("redis://", {}, ConfigError, "redis://HOST:PORT"),
        ("redis://127.0.0.1:1/x", {"table": None, "query": "%(keys)s"}, ConfigError, "no queries"),
        ("redis://elsewhere.example:6379", {}, FetchRefused, "elsewhere.example"),
    ],
)
async def test_what_is_wrong_is_refused_at_the_start(
    tmp_path: Path, uri: str, lookup: dict[str, Any], error: type[Exception], says: str
) -> None:
    secret_folder(tmp_path / "secrets" / "crm", uri=uri)
    given = {"database": {"secretName": "crm"}, "table": "people"} | lookup
    with pytest.raises(error, match=says):
        open_features(
            FeatureLookup.model_validate({k: v for k, v in given.items() if v is not None}),
            EntityKey(name="id"),
            NAMES,
            Paths(secrets_root=str(tmp_path / "secrets")),
            policy=FetchPolicy(hosts=("127.0.0.1",)),
        )
