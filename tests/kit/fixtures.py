"""The fixtures that tests of several files share; tests/conftest.py registers them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import certifi
import pytest

from fourways_api import Contract
from fourways_http import Server as HttpServer
from fourways_runtime.io.store import (
    RunStore,
    StreamDeclaration,
    StreamWriter,
    open_run_store,
    open_stream_writer,
)
from tests.kit.batch_world import World
from tests.kit.browser import browser as chromium_browser
from tests.kit.callers import Keys
from tests.kit.certificates import TestAuthority
from tests.kit.gateway_plane import Running
from tests.kit.gateway_streams import Broker, streaming
from tests.kit.http_plane import Gate, http_server
from tests.kit.postgres import postgres_server
from tests.kit.stores import OpenStream, contract
from tests.kit.stream_rig import PARTITIONS, NatsServer, nats_server
from tools.cluster import gobuild
from tools.cluster.errors import ClusterError
from tools.servers.cut_line import CutLine, at_words
from tools.servers.postgres import Server

NUMBERS = count()


@pytest.fixture(scope="session", autouse=True)
def few_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let each HTTP client read one authority: reading the world's takes each one 18 ms.

    Those that have to trust somebody are told whom.
    """
    file = tmp_path_factory.mktemp("certificates") / "authority.pem"
    file.write_bytes(TestAuthority().pem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(file))
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One PostgreSQL server for the whole session."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["postgresql", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store on each database; on PostgreSQL one that all tests of the session share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: Server = request.getfixturevalue("postgres")
    return server.uri()


@pytest.fixture
def writer(uri: str) -> Iterator[RunStore]:
    opened = open_run_store(uri)
    yield opened
    opened.close()


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own: all tests share the server."""
    return f"n{next(NUMBERS)}"


@pytest.fixture
def open_stream(uri: str, namespace: str) -> Iterator[OpenStream]:
    opened: list[StreamWriter] = []

    def make(spec: Contract | None = None, **more: Any) -> StreamWriter:
        told = {"version": "v1", "digest": "sha256:1", "source": "topic", **more}
        stream = StreamDeclaration(namespace, "anomaly", contract=spec or contract(), **told)
        opened.append(open_stream_writer(uri, stream))
        return opened[-1]

    yield make
    for writer in opened:
        writer.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")


@pytest.fixture(params=["postgresql", "sqlite"])
def each_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "sqlite":
        return World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")
    server: Server = request.getfixturevalue("postgres")
    return World(tmp_path, server.database(), "n")


@pytest.fixture
def disk() -> Iterator[Callable[..., Callable[[str], None]]]:
    """Return what mounts a small disk at a folder, and returns what makes it larger."""
    with ExitStack() as stack:

        def mounted(folder: Path, size: str = "1536k") -> Callable[[str], None]:
            folder.mkdir(parents=True, exist_ok=True)
            made = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
            )
            if made.returncode:
                pytest.skip(f"no file system can be mounted: {made.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", "-l", folder], check=True)

            def grow(size: str) -> None:
                subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)

            return grow

        yield mounted


@pytest.fixture
def cut_line(request: pytest.FixtureRequest) -> Iterator[Callable[..., CutLine]]:
    """Make lines to the server that are cut at chosen words."""
    server: Server = request.getfixturevalue("postgres")
    with ExitStack() as stack:
        yield lambda words, **how: stack.enter_context(CutLine(server, at_words(words), **how))


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A PostgreSQL server that the test may stop and start."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window; see tests/kit/browser.py."""
    with chromium_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def broker() -> Iterator[Any]:
    """A Kafka broker. Tests may kill it and start it again; each has topics of its own."""
    servers = pytest.importorskip("tools.servers.kafka")
    try:
        with servers.running() as started:
            yield started
    except ClusterError as error:
        pytest.skip(f"no Kafka here: {error}")


@pytest.fixture
def topic(broker: Any) -> str:
    from confluent_kafka.admin import NewTopic

    name = f"events-{next(NUMBERS)}"
    admin = broker.admin()
    made = admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    made[name].result(30)
    return name


@pytest.fixture
async def gate() -> Gate:
    """An HTTP application that the test holds up."""
    return Gate()


@pytest.fixture
async def server(gate: Gate) -> AsyncIterator[HttpServer]:
    """The server of that application, on a real socket."""
    async with http_server(gate) as started:
        yield started


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Running, Broker]]:
    """A gateway in front of a streaming deployment, and its broker."""
    async with streaming(tmp_path) as both:
        yield both


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server that the test may stop and start; it has no stream."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with nats_server(folder) as server:
        yield server


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The folder of a gateway's API keys."""
    return Keys(tmp_path)


@pytest.fixture(scope="session")
def helm() -> str:
    """Helm, if it is there: it is not built for this."""
    found = shutil.which("helm")
    try:
        if found is None and not gobuild.missing():
            found = str(gobuild.build().path("helm"))
    except (ClusterError, OSError):
        found = None
    if found is None:
        pytest.skip("helm is not here; make cluster builds it")
    return found
