"""A running host takes up other deployments; its processes are stand-ins that only wait."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from fourways_api import ModelDeployment, parse
from fourways_cli import hosting
from fourways_cli.embedded import runs, servers
from fourways_cli.embedded.host import Host, RestartNeeded
from fourways_cli.embedded.ports import PortUnavailable, free_port
from tests.kit import parity
from tests.kit.waiting import turns, until_async

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 10.0


class Process:
    """A worker that runs until it is stopped."""

    returncode = None

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


class Workers:
    """The processes that run now, and those that ran, by their logs' names."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.started: list[str] = []

    @asynccontextmanager
    async def worker(self, args: Any, environment: Any, log: Path) -> AsyncIterator[Process]:
        name = log.stem.removeprefix("default-").rstrip("0123456789").rstrip("-")
        self.running.append(name)
        self.started.append(name)
        try:
            yield Process()
        finally:
            self.running.remove(name)

    async def until(self, *names: str) -> None:
        """Wait until exactly these run, and forget who was started."""
        await until_async(
            lambda: sorted(self.running) == sorted(names),
            lambda: f"exactly {names} run, and not {self.running}",
            interval=0.005,
        )

    def taken(self) -> list[str]:
        started, self.started = sorted(self.started), []
        return started


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    for module in (runs, servers):
        monkeypatch.setattr(module, "worker", made.worker)
    return made


def churn(name: str = "churn", namespace: str | None = None, **spec: Any) -> ModelDeployment:
    document = yaml.safe_load((EXAMPLES / "churn.yaml").read_text())
    document["metadata"]["name"] = name
    if namespace:
        document["metadata"]["namespace"] = namespace
    document["spec"] |= spec
    return parse(document)


def water() -> ModelDeployment:
    return parse(yaml.safe_load((EXAMPLES / "water-flow.yaml").read_text()))


@asynccontextmanager
async def serving(
    state: Path, *deployments: ModelDeployment, **options: Any
) -> AsyncIterator[Host]:
    port = options.pop("port", None) or free_port()
    host = Host(deployments, state, volumes={}, secrets={}, port=port, **options)
    task = asyncio.ensure_future(host.serve())
    try:
        yield host
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def taking(port: int) -> Iterator[None]:
    """Hold a port, unless another process holds it already."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            other.bind(("127.0.0.1", port))
            other.listen()
        yield


GATEWAY = "fourways-gateway"


async def test_only_what_changed_is_started_again(tmp_path: Path, workers: Workers) -> None:
    async with serving(tmp_path, churn("a"), churn("b")) as host:
        await workers.until("a-batch", "b-batch", GATEWAY)
        workers.taken()
        changed = churn("b", resources={"cpu": "2"})
        assert await host.replace([churn("a"), changed]) == [("default", "b")]
        await workers.until("a-batch", "b-batch", GATEWAY)
        assert "a-batch" not in workers.taken()
        assert host.managed["default", "b"].document["spec"]["resources"]["cpu"] == "2"
        assert await host.replace([churn("a"), changed]) == []
        assert workers.taken() == []


async def test_deployments_come_and_go(tmp_path: Path, workers: Workers) -> None:
    async with serving(tmp_path, churn("a")) as host:
        await workers.until("a-batch", GATEWAY)
        await host.replace([churn("b")])
        await workers.until("b-batch", GATEWAY)
        assert list(host.managed) == [("default", "b")]


async def test_a_new_namespace_has_a_gateway_of_its_own(tmp_path: Path, workers: Workers) -> None:
    async with serving(tmp_path, churn("a")) as host:
        await workers.until("a-batch", GATEWAY)
        (before,) = host.gateways.values()
        await host.replace([churn("a"), churn("a", "team")])
        assert host.gateways["default"] is before
        first, team = before.server.config.port, host.gateways["team"].server.config.port
        assert team > first
        await host.replace([churn("a")])
        assert list(host.gateways) == ["default"]
        await host.replace([churn("a"), churn("a", "team"), churn("a", "other")])
        ports = {name: gateway.server.config.port for name, gateway in host.gateways.items()}
        assert ports["team"] == team
        assert ports["other"] > team


async def test_new_streams_need_a_restart_and_change_nothing(
    tmp_path: Path, workers: Workers
) -> None:
    async with serving(tmp_path, churn("a")) as host:
        await workers.until("a-batch", GATEWAY)
        with pytest.raises(RestartNeeded, match="streams"):
            await host.replace([churn("a"), water()])
        assert list(host.managed) == [("default", "a")]
        await workers.until("a-batch", GATEWAY)
    async with serving(tmp_path, churn("a"), broker="nats://127.0.0.1:1") as host:
        await workers.until("a-batch", GATEWAY)
        await host.replace([churn("a"), water()])
        await workers.until("a-batch", "water-flow-streaming", GATEWAY)


async def test_a_host_that_has_not_started_takes_nothing_up(tmp_path: Path) -> None:
    host = Host([churn("a")], tmp_path, volumes={}, secrets={}, port=free_port())
    with pytest.raises(RestartNeeded):
        await host.replace([churn("b")])


async def test_who_waits_for_a_run_of_a_replaced_deployment_is_told(
    tmp_path: Path, workers: Workers
) -> None:
    async with serving(tmp_path, churn("a")) as host:
        await workers.until("a-batch", GATEWAY)
        waiting = asyncio.ensure_future(host.start_run(("default", "a")))
        await turns()
        await host.replace([churn("a", resources={"cpu": "2"})])
        with pytest.raises(ValueError, match="changed meanwhile"):
            await asyncio.wait_for(waiting, SECONDS)


# ---------------------------------------------------------------- ports


async def test_a_taken_port_ends_the_host_before_anything_starts(
    tmp_path: Path, workers: Workers
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        host = Host([churn("a")], tmp_path, volumes={}, secrets={}, port=port)
        introduced: list[Callable[[], None]] = []
        with pytest.raises(PortUnavailable, match=str(port)):
            await host.serve(lambda: introduced.append(host))  # type: ignore[arg-type]
    assert workers.started == []
    assert introduced == []


async def test_a_further_gateway_gets_a_port_that_is_free(tmp_path: Path, workers: Workers) -> None:
    first = free_port()
    with taking(first + 1):
        async with serving(tmp_path, churn("a"), churn("a", "team"), port=first) as host:
            await workers.until("a-batch", "team-a-batch", GATEWAY, f"team-{GATEWAY}")
            team = host.gateways["team"].server.config.port
            assert host.gateways["default"].server.config.port == first
            assert team > first + 1
            await host.replace([churn("a")])
            # While its namespace has no deployment, another program takes its port.
            with taking(team):
                await host.replace([churn("a"), churn("a", "team")])
                assert host.gateways["team"].server.config.port > team


async def test_another_program_s_answers_do_not_make_a_worker_ready(
    tmp_path: Path, workers: Workers
) -> None:
    """It takes the port between the check and the worker's start, and says 200 to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with serving(tmp_path, churn("a")) as host:
        await workers.until("a-batch", GATEWAY)
        (gateway,) = host.gateways.values()
        other = await asyncio.start_server(answer, "127.0.0.1", gateway.server.config.port)
        async with other:
            assert await servers.answers("127.0.0.1", gateway.server.config.port, "/")
            with pytest.raises(AssertionError):
                await until_async(lambda: gateway.ready, "ready", seconds=0.3)
            assert not gateway.listening
            with gateway.log.open("a") as log:
                log.write(f'{{"message":"serving","port":{gateway.server.config.port}}}\n')
            await until_async(lambda: gateway.ready, "the gateway is ready")
            assert gateway.listening


async def test_a_server_that_takes_long_to_start_says_what_it_does(
    workers: Workers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(servers, "SLOW_START_SECONDS", 0.0)
    monkeypatch.setattr(hosting, "TELL_SECONDS", 0.01)
    ready = False

    async def answers(*where: Any) -> bool:
        return ready

    async def fetched(*where: Any) -> bytes:
        raise OSError

    monkeypatch.setattr(servers, "answers", answers)
    monkeypatch.setattr(servers, "fetched", fetched)
    printed: list[str] = []

    def told(text: str) -> bool:
        printed.append(capsys.readouterr().err)
        return text in printed[-1]

    async with serving(tmp_path, parse(parity.documents()["realtime"])) as host:
        telling = asyncio.ensure_future(hosting._tell_slow_starts(host))
        (server,) = host.managed["default", "parity-realtime"].servers
        await until_async(lambda: told("s: it loads its libraries; its log is"), "first message")
        assert printed[-1].startswith("parity-realtime  still starting after ")
        line = {"message": "listening", "port": server.server.config.port}
        server.log.parent.mkdir(parents=True, exist_ok=True)
        server.log.write_text(json.dumps(line) + "\n")
        await until_async(lambda: told("it loads and tries what it serves"), "the second message")
        ready = True
        await until_async(lambda: server.ready, "the server is ready")
        assert server.slow_start is None
        telling.cancel()
