"""Compare one stream worker with its bare stages: Kafka → score → PostgreSQL, durable, on one core.

Run it with `make bench-streaming`. The worker is the same process as on a cluster and has core 0 to
itself. Kafka, PostgreSQL (fsync and synchronous_commit on) and this program share core 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.figures import figure
from benchmarks.serving.work import CONTRACT, forest
from benchmarks.streaming_stages import PARTITIONS, event
from tools.servers.kafka import running
from tools.servers.postgres import Server

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "streaming.json"
PAGE = ROOT / "docs" / "figures-streaming.md"

GOAL = 0.60
"""Share of the slowest bare stage's rate, at micro-batches of 256."""

SIZES = (256, 1024)
STAGES = {
    "consume": "confluent-kafka alone",
    "decode": "orjson → numpy alone",
    "model": "onnxruntime alone, one thread",
    "statement": "one PostgreSQL statement per batch alone, sent ahead",
}
ASIDE = {"answered": "the same, each answered before the next is sent (not a stage of the worker)"}
TOPIC = "events"
_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "fsync": "on",
    "synchronous_commit": "on",
}


class Durable(Server):
    """A PostgreSQL with durable commits: nothing is acknowledged before it is on disk."""

    def start(self) -> None:
        """Start it and wait until it is ready."""
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        self._process = subprocess.Popen(
            [self.binaries / "postgres", "-D", self.data, "-k", self.folder, *settings],
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.uri()).close()
                return
            time.sleep(0.1)


def main() -> int:
    """Measure, print, write; return 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=900_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--profile", type=Path, help="keep a profile of the worker here (py-spy)")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    rates: dict[str, dict[str, list[float]]] = {}
    with servers() as (bootstrap, postgres):
        fill(bootstrap, options.events)
        told = {"bootstrap": bootstrap, "topic": TOPIC, "events": options.events}
        for size in options.sizes:
            for _ in range(options.rounds):
                for stage in (*STAGES, *ASIDE):
                    settings = {**told, "batch": size, "store": postgres.database()}
                    _keep(rates, stage, size, bare(stage, settings))
                rate = worker(bootstrap, postgres.database(), size, options)
                _keep(rates, "fourways", size, rate)
    found = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "events": options.events,
        "rates": rates,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    _, heading, others = PAGE.read_text().partition("\n## ")  # Sections measured by other commands.
    PAGE.write_text(page(rates) + heading + others)
    print(table(rates))
    size = str(options.sizes[0])
    return 0 if figure(f"stream_share_{size}", share(rates, size), GOAL, at_most=False) else 1


@contextmanager
def servers() -> Iterator[tuple[str, Durable]]:
    """Run Kafka and PostgreSQL; they inherit this program's core."""
    with running(heap_mb=512) as kafka:
        admin = kafka.admin()
        from confluent_kafka.cimpl import NewTopic

        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)
        postgres = Durable()
        postgres.start()
        try:
            yield kafka.bootstrap, postgres
        finally:
            postgres.remove()


def fill(bootstrap: str, events: int) -> None:
    """Write all events before the measurement."""
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "queue.buffering.max.messages": 200_000,
        }
    )
    made = [event(number) for number in range(min(events, 100_000))]
    for number in range(events):
        producer.produce(TOPIC, made[number % len(made)], partition=number % PARTITIONS)
        if number % 10_000 == 0:
            producer.flush()
    producer.flush()


def bare(stage: str, settings: dict[str, Any]) -> float:
    """Measure a bare stage on core 0."""
    done = subprocess.run(
        [
            "taskset",
            "-c",
            "0",
            sys.executable,
            "-m",
            "benchmarks.streaming_stages",
            stage,
            json.dumps(settings),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout)


def worker(bootstrap: str, store: str, size: int, options: argparse.Namespace) -> float:
    """Measure a worker from the first tenth of the events until nineteen twentieths."""
    with tempfile.TemporaryDirectory(prefix="fourways-bench-") as folder:
        root = Path(folder)
        (root / "model.onnx").write_bytes(forest())
        (root / "store-secret").mkdir(exist_ok=True)
        (root / "store-secret" / "uri").write_text(store)
        kafka = {"bootstrapServers": bootstrap, "topic": TOPIC, "consumerGroup": root.name}
        document = {
            "namespace": "bench",
            "name": root.name,
            "model": {"uri": f"file://{root}/model.onnx", "version": "1", "format": "onnx"},
            "contract": CONTRACT,
            "streaming": {
                "source": {"kafka": kafka},
                "microBatch": {"maxEvents": size, "maxDelay": "10ms"},
            },
            "port": 0,
            "host": "127.0.0.1",
            "paths": {
                "storeUriFile": f"{root}/store-secret/uri",
                "cacheDir": f"{root}/cache",
                "terminationLog": f"{root}/last-words",
            },
        }
        process = subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, "-m", "fourways_runtime", "stream"],
            env={**os.environ, "FOURWAYS_CONFIG": json.dumps(document)},
            stderr=(root / "log").open("wb"),
            cwd=ROOT,
        )
        try:
            return _watched(store, options, process, root / "log")
        finally:
            process.terminate()
            process.wait(30)


def _watched(
    store: str, options: argparse.Namespace, process: subprocess.Popen[bytes], log: Path
) -> float:
    events = options.events
    begin: tuple[float, int] | None = None
    cpu = 0.0
    profiler: subprocess.Popen[bytes] | None = None
    with psycopg.connect(store, autocommit=True) as connection:
        while True:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.05)
            with suppress(psycopg.errors.UndefinedTable):
                row = connection.execute("SELECT sum(next) FROM fourways.positions").fetchone()
                done, now = int((row and row[0]) or 0), time.perf_counter()
                if begin is None and done > events // 10:
                    begin, cpu = (now, done), _cpu_seconds(process.pid)
                    if options.profile:
                        profiler = _profile(process.pid, options.profile)
                if begin is not None and done >= events * 19 // 20:
                    if profiler is not None:
                        profiler.wait(60)
                    events_done = done - begin[1]
                    spent = (_cpu_seconds(process.pid) - cpu) / events_done
                    print(f"worker: {spent * 1e6:.2f} µs of CPU an event", flush=True)
                    return events_done / (now - begin[0])


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used; other load does not affect it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _profile(pid: int, file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            "py-spy",
            "record",
            "--pid",
            str(pid),
            "--duration",
            "4",
            "--rate",
            "250",
            "--format",
            "raw",
            "--threads",
            "--gil",
            "--output",
            str(file),
        ],
    )


def _keep(rates: dict[str, dict[str, list[float]]], name: str, size: int, rate: float) -> None:
    rates.setdefault(name, {}).setdefault(str(size), []).append(rate)
    print(f"{name} {size}: {rate:,.0f} events/s", flush=True)


def share(rates: dict[str, dict[str, list[float]]], size: str) -> float:
    """Return the worker's rate relative to the slowest bare stage's, the median of the rounds.

    The slowest stage may change from round to round, because disk syncs take varying times.
    """
    rounds = zip(*(rates[name][size] for name in ("fourways", *STAGES)), strict=True)
    return float(statistics.median(worker / min(stages) for worker, *stages in rounds))


def table(rates: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians as a table in Markdown."""
    sizes = list(rates["fourways"])
    lines = [
        f"| events/s | {' | '.join(sizes)} |",
        f"|---|{'---|' * len(sizes)}",
    ]
    names = {**STAGES, **ASIDE, "fourways": "**the whole worker**, durable"}
    for name, title in names.items():
        cells = [f"{statistics.median(rates[name][size]):,.0f}" for size in sizes]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    shares = [f"{share(rates, size):.0%}" for size in sizes]
    lines.append(f"| share of the slowest stage, median of the rounds | {' | '.join(shares)} |")
    return "\n".join(lines)


def page(rates: dict[str, dict[str, list[float]]]) -> str:
    """Return the page of figures."""
    return f"""# Figures of the stream worker

`make bench-streaming` measures it. The events are 257 bytes of JSON with 20 numbers, in three
partitions of Kafka; the model is a forest of 100 trees. One statement writes predictions and
positions to a PostgreSQL that syncs each commit. The worker sends the next statement before the
previous one is answered, and so does its bare stage. The worker has one core, the servers another.
The columns are the numbers of events in a micro-batch.

{table(rates)}
"""


if __name__ == "__main__":
    sys.exit(main())
