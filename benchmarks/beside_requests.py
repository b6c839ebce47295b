"""``python -m benchmarks.beside_requests``: what ``monitoring`` and ``quality`` cost a request.

Three model servers answer the same requests in turns: one as it is, one that compares its records
with a training profile, one that stores its answers. Compared is the processor time of the whole
process, its threads beside the requests included, for one request over HTTP with one record and its
key. Answers are written once a second, whatever their number: on a loaded machine there are fewer
requests to share that cost. Measure on a quiet one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, Popen
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract
from fourways_api.runtime_config import CONFIG_VARIABLE, ServerConfig
from fourways_cli.embedded.ports import free_port
from fourways_runtime.io.store import open_database
from fourways_runtime.scoring.profile import make_profile
from tools.kit.models import LINEAR, linear
from tools.servers.postgres import running

ROUNDS = 15
REQUESTS = 3_000
CLIENTS = 8
PATH = "/v2/models/m/infer"
KINDS: dict[str, dict[str, Any]] = {
    "bare": {},
    "monitoring": {"monitoring": {"window": "1h"}},
    "quality": {"stored": {"output": "score", "share": "100%"}},
}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as made, running() as store, ExitStack() as started:
        folder, uri = Path(made), store.database()
        (folder / "m.onnx").write_bytes(linear())
        _profile(folder)
        (folder / "store").mkdir()
        (folder / "store" / "uri").write_text(uri)
        with closing(open_database(uri)):
            pass  # creates the tables
        servers = {name: _started(folder, more, started) for name, more in KINDS.items()}
        asyncio.run(_measured(servers))
        with closing(open_database(uri)) as data:
            (kept,) = data.rows("SELECT count(*), sum(size) FROM @past_predictions")
            print(f"answers stored: {kept[1]:,} in {kept[0]:,} rows")


def _profile(folder: Path) -> None:
    random = np.random.default_rng(0)
    contract = Contract.model_validate(LINEAR)
    known = {each.name: random.normal(30, 9, 20_000).astype(each.type) for each in contract.inputs}
    outputs = {each.name: random.normal(0, 1, 20_000) for each in contract.outputs}
    profile = make_profile(contract, known, outputs)
    (folder / "profile.json").write_text(profile.model_dump_json(by_alias=True))


def _started(folder: Path, more: dict[str, Any], started: ExitStack) -> tuple[int, int]:
    """Return the port and the process id of a model server."""
    if "monitoring" in more:
        profile = {"profile": {"uri": (folder / "profile.json").as_uri()}}
        more = {"monitoring": {**more["monitoring"], **profile}}
    port = free_port()
    document = {
        "namespace": "n",
        "name": "m",
        "host": "127.0.0.1",
        "port": port,
        "model": {"uri": (folder / "m.onnx").as_uri(), "version": "1"},
        "contract": LINEAR,
        "paths": {
            "cacheDir": str(folder / f"cache{port}"),
            "terminationLog": str(folder / f"words{port}"),
            "storeUriFile": str(folder / "store" / "uri"),
        },
        **more,
    }
    config = ServerConfig.model_validate(document).model_dump_json(by_alias=True)
    command = [sys.executable, "-m", "fourways_runtime", "serve"]
    environment = {**os.environ, CONFIG_VARIABLE: config}
    process = Popen(
        command, env=environment, stderr=DEVNULL if not os.environ.get("SHOW") else None
    )
    started.callback(process.wait)
    started.callback(process.kill)
    return port, process.pid


async def _measured(servers: dict[str, tuple[int, int]]) -> None:
    for port, _ in servers.values():
        await _ready(port)
        await _asked(port, REQUESTS)
    spent: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
        for name, (port, pid) in servers.items():
            before = _processor_seconds(pid)
            await _asked(port, REQUESTS)
            spent[name].append((_processor_seconds(pid) - before) / REQUESTS)
    bare = spent.pop("bare")
    print(f"a request: {median(bare) * 1e6:.0f} µs of processor time")
    for name, found in spent.items():
        ratios = sorted(each / at for each, at in zip(found, bare, strict=True))
        low, high = ratios[ROUNDS // 4] - 1, ratios[-1 - ROUNDS // 4] - 1
        print(
            f"with {name}: {median(ratios) - 1:+.1%} ({median(found) * 1e6:.0f} µs); half of "
            f"{ROUNDS} turns from {low:+.1%} to {high:+.1%}"
        )


async def _ready(port: int) -> None:
    for _ in range(1_200):
        try:
            if await _status(port) == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("a model server did not become ready")


async def _status(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return int(line[9:12] or 0)


async def _asked(port: int, count: int) -> None:
    """Ask on some connections. Raises RuntimeError for an answer that is none."""
    left = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            writer.write(_request(number))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{head!r} {body!r}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


def _request(number: int) -> bytes:
    tensors = [
        {"name": "id", "datatype": "BYTES", "shape": [1], "data": [f"entity{number:05d}"]},
        {"name": "age", "datatype": "INT32", "shape": [1], "data": [20 + number % 50]},
        {"name": "spend", "datatype": "FP32", "shape": [1], "data": [number % 97 / 2]},
        {"name": "rate", "datatype": "FP32", "shape": [1], "data": [number % 40 / 4]},
    ]
    body = orjson.dumps({"inputs": tensors})
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _processor_seconds(pid: int) -> float:
    """Return the processor time of all of a process's threads that live."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9


if __name__ == "__main__":
    main()
