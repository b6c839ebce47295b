"""A host believes a port only once its own worker listens there, and notices edited manifests."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from fourways_cli.embedded import ports
from fourways_cli.embedded.broker import Broker
from fourways_cli.embedded.manifest_watch import edits
from fourways_cli.embedded.ports import (
    HOST,
    GatewayPorts,
    ListeningLog,
    PortUnavailable,
    check_free,
    free_port,
)

SECONDS = 10.0


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use_is_refused_with_the_way_out(taken: int) -> None:
    with pytest.raises(PortUnavailable, match=f"port {taken} .* another with --port"):
        check_free(taken)


def test_a_free_port_is_free_also_after_it_was_used() -> None:
    port = free_port()
    for _ in range(2):
        check_free(port)
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
            # Whoever closes first leaves the connection in TIME_WAIT.
            with socket.create_connection(("127.0.0.1", port)):
                connection, _ = server.accept()
                connection.close()


def test_no_outgoing_connection_takes_a_free_port() -> None:
    low, high = map(int, ports.OUTGOING.read_text().split())
    chosen = [free_port() for _ in range(100)]
    assert not [port for port in chosen if low <= port <= high]
    assert len(set(chosen)) == 100


@pytest.mark.parametrize(
    ("outgoing", "lowest"),
    [("10000\t60999\n", 61_000), ("1024\t65535\n", 10_000), ("nonsense", 10_000), (None, 10_000)],
)
def test_any_range_of_outgoing_ports_leaves_free_ones(
    outgoing: str | None, lowest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "range"
    if outgoing is not None:
        file.write_text(outgoing)
    monkeypatch.setattr(ports, "OUTGOING", file)
    assert min(free_port() for _ in range(20)) >= lowest


def test_two_processes_choose_different_ports() -> None:
    """Also if both seed the generator with the same number, as test runners do."""
    code = (
        "import random; random.seed(0); from fourways_cli.embedded.ports import free_port;"
        "print(*(free_port() for _ in range(3)))"
    )
    said = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)]
    assert not set(said[0].split()) & set(said[1].split())


def test_only_the_first_gateway_needs_its_port(taken: int) -> None:
    with pytest.raises(PortUnavailable, match=f"port {taken} .* another with --port"):
        GatewayPorts(taken).assign(["a"])
    gateways = GatewayPorts(taken - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "check_free", lambda *_: None)
        gateways.assign(["a", "b"])
    assert gateways["a"] == taken - 1
    assert gateways["b"] > taken


def test_there_is_no_port_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "check_free", lambda *_: None)
    with pytest.raises(PortUnavailable, match=r"namespace b .* choose a lower --port"):
        GatewayPorts(65_535).assign(["a", "b"])


# ---------------------------------------------------------------- who listens


def line(message: str, port: object) -> str:
    return json.dumps({"level": "info", "message": message, "port": port}) + "\n"


@pytest.mark.parametrize("message", ["listening", "serving"])
def test_a_worker_listens_once_its_own_log_says_so(tmp_path: Path, message: str) -> None:
    path = tmp_path / "log"
    path.write_text(line(message, 80))  # of its life before
    log = ListeningLog(path, 80)
    assert not log.look()
    with path.open("a") as file:
        file.write("no JSON\n[1]\n" + line("listening", 81) + line("other", 80))
        file.flush()
        assert not log.look()
        whole = line(message, 80)
        file.write(whole[:-5])
        file.flush()
        assert not log.look()
        file.write(whole[-5:])
        file.flush()
        assert log.look()
    assert log.look()


def test_a_log_may_begin_later(tmp_path: Path) -> None:
    log = ListeningLog(tmp_path / "log", 80)
    assert not log.look()
    (tmp_path / "log").write_text(line("listening", 80))
    assert log.look()


# ---------------------------------------------------------------- edits


async def test_an_edit_is_noticed_once_and_so_is_a_file_put_in_its_place(tmp_path: Path) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for each in (file, other):
        each.write_text("one")
    async with aclosing(edits([file, other], 0.01)) as found:
        waiting = asyncio.ensure_future(anext(found))
        assert not (await asyncio.wait([waiting], timeout=0.1))[0]
        file.write_text("two words")
        await asyncio.wait_for(waiting, SECONDS)
        waiting = asyncio.ensure_future(anext(found))
        assert not (await asyncio.wait([waiting], timeout=0.1))[0]
        (tmp_path / "new").write_text("three")
        os.replace(tmp_path / "new", other)
        await asyncio.wait_for(waiting, SECONDS)
        waiting = asyncio.ensure_future(anext(found))
        file.unlink()
        await asyncio.wait_for(waiting, SECONDS)


# ---------------------------------------------------------------- the broker


async def test_another_program_s_answer_is_not_the_broker_s(tmp_path: Path) -> None:
    broker = Broker(tmp_path, {"S": ["s"]})
    greeting = b'INFO {"server_name":"someone-else"} \r\n'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    port = int(broker.servers.rpartition(":")[2])
    async with await asyncio.start_server(answer, HOST, port):
        assert not await broker.answers()
        greeting = json.dumps({"server_name": broker.name}).encode() + b"\r\n"
        assert await broker.answers()
    assert not await broker.answers()
