"""Measure what credentials cost: lookups of a gateway with API keys, beside one without.

    python -m benchmarks.gateway_auth [SECONDS]

Both gateways read one batch run of 10,000 keys from one PostgreSQL. Each in turn gets 64
connections; the gateway has core 1 for itself, all else is on core 0. Prints requests per second
and the gateway's processor time per request for each round, and the ratios of their medians. The
rates need a quiet machine; the ratio of processor time needs it less. Needs ``wrk``, ``taskset``
and PostgreSQL; takes about a minute.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fourways_api import GatewayConfig, Paths, RuntimeConfig
from fourways_api.callers import CallerPolicy
from fourways_cli.embedded.ports import free_port
from fourways_runtime.callers.api_keys import new_key
from fourways_runtime.workloads.batch import open_run
from tools.kit.models import LINEAR, linear
from tools.servers import postgres

from .gateway import cpu_seconds, load, running

KEYS, CALLERS, CONNECTIONS, ROUNDS = 10_000, 20, 64, 4
LOAD_CORE, GATEWAY_CORE = 0, 1
GOAL = 0.9

_ASK = """
local n = 0
request = function()
  n = (n * 7 + 13) % {keys}
  return wrk.format("GET", "/predictions/score/k" .. n, {{{header}}})
end
"""


def publish(folder: Path, paths: Paths) -> None:
    """Publish the run that is looked up."""
    (folder / "model.onnx").write_bytes(linear())
    columns = {
        "id": [f"k{n}" for n in range(KEYS)],
        "age": np.full(KEYS, 40, np.int32),
        "spend": np.full(KEYS, 1.5, np.float32),
        "rate": np.full(KEYS, 0.25, np.float32),
    }
    pq.write_table(pa.table(columns), folder / "t.parquet")
    document = {
        "namespace": "shop",
        "name": "score",
        "model": {"uri": (folder / "model.onnx").as_uri(), "version": "1"},
        "contract": LINEAR,
        "batch": {"schedule": "@daily", "source": {"uri": (folder / "t.parquet").as_uri()}},
        "paths": paths.to_json(),
    }
    open_run(RuntimeConfig.model_validate(document), "r1").execute()


def callers(folder: Path) -> tuple[CallerPolicy, str]:
    """Return a policy with some callers, and the key of one of them."""
    keys = folder / "keys"
    keys.mkdir()
    for number in range(CALLERS):
        key, digest = new_key(f"caller-{number}")
        record = {"sha256": [digest], "scopes": ["predict:*", "read:*"]}
        (keys / f"caller-{number}").write_text(json.dumps(record))
    return CallerPolicy(keys_dir=str(keys)), key


def main() -> None:
    """Measure and print."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    os.sched_setaffinity(0, {LOAD_CORE})  # PostgreSQL inherits it
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres.running())
        (folder / "store").mkdir()
        (folder / "store" / "uri").write_text(server.database())
        paths = Paths(
            store_uri_file=f"{folder}/store/uri",
            cache_dir=f"{folder}/cache",
            termination_log=f"{folder}/log",
        )
        publish(folder, paths)
        policy, key = callers(folder)
        rates: dict[str, list[float]] = {}
        spent: dict[str, list[float]] = {}
        gateways: list[tuple[str, str, Path, int]] = []
        for name, known, header in (
            ("without", None, ""),
            ("with keys", policy, f'Authorization = "Bearer {key}"'),
        ):
            config = GatewayConfig(
                namespace="shop", host="127.0.0.1", port=free_port(), paths=paths, callers=known
            )
            url = f"http://127.0.0.1:{config.port}"
            told = config.model_dump_json(by_alias=True)
            pid = stack.enter_context(running("gateway", told, url, GATEWAY_CORE))
            script = folder / f"{len(gateways)}.lua"
            script.write_text(_ASK.format(keys=KEYS, header=header))
            load(url, script, CONNECTIONS, 1, LOAD_CORE)
            gateways.append((name, url, script, pid))
        for _ in range(ROUNDS):
            for name, url, script, pid in gateways:
                before = cpu_seconds(pid)
                rate, latency, count = load(url, script, CONNECTIONS, seconds, LOAD_CORE)
                used = (cpu_seconds(pid) - before) / count * 1e6
                rates.setdefault(name, []).append(rate)
                spent.setdefault(name, []).append(used)
                print(f"{name:10} {rate:8.0f}/s {latency:26} {used:6.1f} µs of processor a request")
        rate_ratio = median(rates["with keys"]) / median(rates["without"])
        cpu_ratio = median(spent["without"]) / median(spent["with keys"])
        print(f"rate with keys: {rate_ratio:.3f} of that without (goal {GOAL:g})")
        print(f"requests per second of processor time: {cpu_ratio:.3f} of those without")


if __name__ == "__main__":
    main()
