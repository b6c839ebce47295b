"""Send a running model server and gateway mutated bodies and requests, and see what they answer.

``python -m tools.torture.requests [--short] [--bodies N] [--requests N] [--largest N] [--seed N]``

* bodies: valid inference requests of version 2 in JSON and in binary, of version 1, and messages of
  gRPC, damaged in one to three places, as bytes or as values, to the model server directly and
  through the gateway;
* requests: the same with the damage anywhere in the HTTP request;
* largest: bodies of nearly 16 MiB, good and bad in turn, while probes are timed.

A damaged body must be answered by 200 (it may still be valid) or by a 4xx that gives a reason, over
gRPC by OK or the status of such a 4xx with details; a
damaged request that no longer is one, by closing the connection at the latest when the client has
stopped sending. No process may end, and none may keep memory. Exits with 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import grpc
import orjson

from .request_material import (
    Target,
    damaged,
    damaged_request,
    damaged_v1,
    largest,
    servers_of,
)
from .request_messages import CLIENT_FAULTS, Caller, calling, damaged_message

CLIENTS = 8
ANSWER_SECONDS = 20.0
TOLD_SECONDS = 10.0
"""How often the progress of the largest bodies is printed."""

GROWTH_MIB = 24.0
"""Memory that a process may gain between a tenth of the damage and the end of it."""


class Seen:
    """What was answered, and what is wrong with it."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []

    def judge(self, target: Target, sent: bytes, status: int, body: bytes) -> None:
        """Count an answer; one that is no 200 and no 4xx with a reason is a fault."""
        self.statuses[f"{target.name} {status}"] += 1
        if status == 200:
            return
        try:
            reason = orjson.loads(body).get("error")
        except (orjson.JSONDecodeError, AttributeError):
            reason = None
        if not 400 <= status < 500 or not reason:
            self.faults.append(f"{target.name}: {status} {body[:200]!r} to {sent[:2000]!r}")

    def judge_call(self, target: Target, sent: bytes, code: grpc.StatusCode, details: str) -> None:
        """Do the same for an answer over gRPC."""
        self.statuses[f"{target.name} gRPC {code.name}"] += 1
        if code is not grpc.StatusCode.OK and not (code in CLIENT_FAULTS and details):
            self.faults.append(f"{target.name}: {code.name} {details[:200]!r} to {sent[:2000]!r}")


Way = Callable[[Seen, Target, random.Random], Awaitable[None]]
"""Sends one damaged request to a target, and judges the answer."""


async def main_async(options: argparse.Namespace) -> int:
    """Start the servers and do everything; return the exit code."""
    seen = Seen()
    with (
        tempfile.TemporaryDirectory(prefix="fourways-requests-") as folder,
        running(Path(folder)) as (targets, pids),
    ):
        chance = random.Random(options.seed)  # noqa: S311
        async with calling(targets, ANSWER_SECONDS) as caller:
            bodies = [_over_http(damaged), _over_http(damaged_v1), _over_grpc(caller)]
            await _all(seen, targets, chance, options.bodies // 10, bodies)
            before = {name: memory_mib(pid) for name, pid in pids.items()}
            await _all(seen, targets, chance, options.bodies - options.bodies // 10, bodies)
        await _all(seen, targets, chance, options.requests, [_over_http(damaged_request)])
        for name, pid in pids.items():
            now = memory_mib(pid)
            print(f"{name}: {before[name]:.0f} MiB, then {now:.0f} MiB")
            if now - before[name] > GROWTH_MIB:
                seen.faults.append(f"{name}: grew from {before[name]:.0f} to {now:.0f} MiB")
        if options.largest:
            await _largest(seen, targets, pids, options.largest)
    for status, count in sorted(seen.statuses.items()):
        print(f"{status}: {count}")
    for fault in seen.faults[:20]:
        print("FAULT", fault)
    print(f"{len(seen.faults)} faults")
    return 1 if seen.faults else 0


async def _all(
    seen: Seen,
    targets: Sequence[Target],
    chance: random.Random,
    count: int,
    ways: Sequence[Way],
) -> None:
    """Send ``count`` damaged requests from several clients, each in one of the ways."""
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await chance.choice(ways)(seen, chance.choice(targets), chance)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


def _over_http(damage: Callable[[Target, random.Random], bytes]) -> Way:
    """Return how a damaged request is sent over HTTP, on a connection of its own."""

    async def send(seen: Seen, target: Target, chance: random.Random) -> None:
        sent = damage(target, chance)
        try:
            status, body = await asyncio.wait_for(_exchange(target.port, sent), ANSWER_SECONDS)
        except TimeoutError:
            seen.faults.append(f"{target.name}: no answer to {sent[:2000]!r}")
            return
        if status:
            seen.judge(target, sent, status, body)
        else:
            seen.statuses[f"{target.name} closed"] += 1

    return send


def _over_grpc(caller: Caller) -> Way:
    """Return how a damaged message is sent over gRPC."""

    async def send(seen: Seen, target: Target, chance: random.Random) -> None:
        sent = damaged_message(target, chance)
        seen.judge_call(target, sent, *await caller.call(target, sent))

    return send


async def _exchange(port: int, sent: bytes) -> tuple[int, bytes]:
    """Send, stop sending, and return the first answer's status and body; 0 without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(sent)
            writer.write_eof()
        head = b"HTTP/1.1 100"
        while head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        head_only = sent.startswith(b"HEAD ")
        return status, b'{"error":"head"}' if head_only else await reader.readexactly(length)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0, b""
    finally:
        writer.transport.abort()


async def _largest(seen: Seen, targets: Sequence[Target], pids: dict[str, int], count: int) -> None:
    """Send the largest bodies while both servers are probed; print the latencies and the peak."""
    waits: list[float] = []
    peak = dict.fromkeys(pids, 0.0)
    done = asyncio.Event()

    async def probe() -> None:
        while not done.is_set():
            for port in {target.port for target in targets}:
                began = time.perf_counter()
                sent = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
                await _exchange(port, sent)
                waits.append(time.perf_counter() - began)
            for name, pid in pids.items():
                peak[name] = max(peak[name], memory_mib(pid))
            await asyncio.sleep(0.01)

    probing = asyncio.ensure_future(probe())
    bodies = [list(largest(target)) for target in targets]
    began = told = time.monotonic()
    for n in range(count):
        at = n % len(targets)
        sent = bodies[at][n // len(targets) % len(bodies[at])]
        status, body = await _exchange(targets[at].port, sent)
        seen.judge(targets[at], sent[:200], status, body)
        now = time.monotonic()
        if now - told >= TOLD_SECONDS:
            told, left = now, (now - began) / (n + 1) * (count - n - 1)
            most = ", ".join(f"{mib:.0f}" for mib in peak.values())
            print(
                f"  {n + 1} of {count} largest bodies, some {left:.0f} s more; peaks {most} MiB, "
                f"{len(seen.faults)} faults",
                flush=True,
            )
    done.set()
    await probing
    waits.sort()
    at99 = waits[int(len(waits) * 0.99)]
    print(
        f"{count} largest bodies in {time.monotonic() - began:.0f} s: {len(waits)} probes,"
        f" median {waits[len(waits) // 2] * 1e3:.1f}, p99 {at99 * 1e3:.1f},"
        f" worst {waits[-1] * 1e3:.1f} ms;"
        f" peak {', '.join(f'{name} {mib:.0f} MiB' for name, mib in peak.items())}"
    )


def memory_mib(pid: int) -> float:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[list[Target], dict[str, int]]]:
    """Run the model servers and a gateway before them; a process that ends is an error."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    targets, workloads = servers_of(folder)
    try:
        for name, (mode, variable, config, port) in workloads.items():
            environment = {**os.environ, variable: config}
            with open(folder / f"{name}.log", "wb") as log:
                command = [sys.executable, "-m", "fourways_runtime", mode]
                processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            _await_ready(processes[name], port)
        yield targets, {name: process.pid for name, process in processes.items()}
        for name, process in processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {(folder / f'{name}.log').read_text()[-2000:]}")
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(30)


def _await_ready(process: subprocess.Popen[bytes], port: int, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as one:
            one.sendall(b"GET /v2/health/ready HTTP/1.0\r\n\r\n")
            if one.recv(64).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    raise RuntimeError("a server did not become ready")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the options and do it."""
    asked = argparse.ArgumentParser(prog="python -m tools.torture.requests")
    asked.add_argument("--short", action="store_true")
    asked.add_argument("--bodies", type=int, default=100_000)
    asked.add_argument("--requests", type=int, default=10_000)
    asked.add_argument("--largest", type=int, default=200)
    asked.add_argument("--seed", type=int, default=random.randrange(2**32))  # noqa: S311
    options = asked.parse_args(argv)
    if options.short:
        options.bodies, options.requests, options.largest = 600, 200, 6
    print(f"seed {options.seed}")
    return asyncio.run(main_async(options))


if __name__ == "__main__":
    sys.exit(main())
