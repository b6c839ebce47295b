"""The load generator for gRPC, in Python on its own core: each connection asks in turn.

``python -m benchmarks.serving.grpc_load ADDRESS ROWS CONNECTIONS SECONDS`` prints what it measured
as JSON. It takes more of its core than wrk does; where its core is busy, its rate is a lower bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from time import perf_counter, process_time

from grpc import aio

from fourways_runtime.grpc_v2.messages import SERVICE, message

from . import work
from .load import CORE, Measured

ROOT = Path(__file__).parents[2]
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def load_grpc(address: str, rows: int, connections: int, seconds: float) -> Measured:
    """Call for a time. Raises RuntimeError if a call failed."""
    asked = map(str, (address, rows, connections, seconds))
    done = subprocess.run(
        ["taskset", "-c", str(CORE), sys.executable, "-m", "benchmarks.serving.grpc_load", *asked],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"calls to {address} failed: {done.stderr[-800:]}")
    return Measured(**json.loads(done.stdout))


def _messages(rows: int) -> list[bytes]:
    made = []
    for question in work.questions(rows, binary=True):
        request = message("ModelInferRequest")(
            model_name="model", raw_input_contents=[question.body[question.header_length :]]
        )
        request.inputs.add(name="input", datatype="FP32", shape=question.values.shape)
        made.append(request.SerializeToString())
    return made


async def _measure(address: str, rows: int, connections: int, seconds: float) -> Measured:
    messages = cycle(_messages(rows))
    took: list[float] = []
    channels = [aio.insecure_channel(address, options=_OWN_CONNECTION) for _ in range(connections)]
    calls = [channel.unary_unary(f"/{SERVICE}/ModelInfer") for channel in channels]
    await asyncio.gather(*(call(next(messages)) for call in calls))
    began, used = perf_counter(), process_time()
    end = began + seconds

    async def ask(number: int) -> None:
        call = calls[number]
        while (start := perf_counter()) < end:
            await call(next(messages))
            took.append(perf_counter() - start)

    await asyncio.gather(*map(ask, range(connections)))
    whole, used = perf_counter() - began, process_time() - used
    await asyncio.gather(*(channel.close() for channel in channels))
    took.sort()
    p50, p99 = (took[int(len(took) * share)] * 1e3 for share in (0.5, 0.99))
    return Measured(len(took), len(took) / whole, p50, p99, used / whole)


def main() -> None:
    """Measure as the arguments say."""
    address, rows, connections, seconds = sys.argv[1:]
    found = asyncio.run(_measure(address, int(rows), int(connections), float(seconds)))
    print(json.dumps({name: getattr(found, name) for name in Measured.__slots__}))


if __name__ == "__main__":
    main()
