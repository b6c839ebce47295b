"""Measure one variant in a separate process, which isolates its memory use and its crashes.

``measured`` starts ``python -m`` with this module and reads its output. The child loads the model,
binds it to the contract and scores one record at a time, as a device does. Its peak resident memory
includes the interpreter and the libraries, which a device needs as well.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .judge import Measured

if TYPE_CHECKING:
    from fourways_runtime.errors import ModelHangs
    from fourways_runtime.scoring.single import RecordScorer

logger = logging.getLogger("fourways.edge")

SECONDS = 600.0
"""A variant that takes longer to measure is left out."""

CALLS = 300
"""Number of predictions timed, or as many as PATIENCE seconds allow."""

PATIENCE = 3.0
_MAX_NAMED = 3
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TMPDIR", "HOME", "LANG")


class NotMeasured(Exception):
    """A variant that could not be measured; ``str()`` says why."""


def measured(files: Mapping[str, Path], *, threads: int, seconds: float = SECONDS) -> Measured:
    """Measure a variant; ``files`` are those of its bundle by name. Raises NotMeasured."""
    asked = {"files": {name: str(path) for name, path in files.items()}, "threads": threads}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fourways_runtime.workloads.edge.measure"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"it was not measured within {seconds:g} s") from None
    if done.returncode < 0:
        raise NotMeasured(f"it crashes (signal {-done.returncode})")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        logger.warning("measuring failed", extra={"stderr": done.stderr[-2000:]})
        raise NotMeasured(
            f"the process that measures it ended with code {done.returncode}"
        ) from None
    if "failed" in answer:
        raise NotMeasured(str(answer["failed"]))
    return Measured(**answer | {"differences": tuple(answer["differences"])})


def _measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    from fourways_api import Contract
    from fourways_api.base import SKIP_RULES
    from fourways_runtime import bundle_layout as layout
    from fourways_runtime.model_watch import LOAD_SECONDS, WATCH
    from fourways_runtime.scoring.agreement import differences
    from fourways_runtime.scoring.golden import read_vectors
    from fourways_runtime.scoring.model.on_device import load_on_device
    from fourways_runtime.scoring.model.watched import watched
    from fourways_runtime.scoring.single import RecordScorer

    files = {name: Path(path) for name, path in asked["files"].items()}
    contract = Contract.model_validate_json(
        files[layout.CONTRACT_FILE].read_bytes(), context=SKIP_RULES
    )
    assert contract.golden_vectors is not None  # noqa: S101  (the build refuses to go on without)
    vectors = read_vectors(files[layout.GOLDEN_FILE], contract)
    started = perf_counter()
    with WATCH.doing("loading the model"), WATCH.call(seconds=LOAD_SECONDS):
        model = watched(load_on_device(contract, files, threads=asked["threads"]))
    asker = RecordScorer(contract, model)
    load_ms = (perf_counter() - started) * 1000
    different = [text for text in differences(asker, vectors, contract.golden_vectors) if text]
    answered = [vector.inputs for vector in vectors if _answers(asker, vector.inputs)]
    times = _timed(asker, answered)
    return {
        "load_ms": load_ms,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[min(len(times) - 1, int(len(times) * 0.99))] * 1000,
        "memory_bytes": peak_memory(),
        "agreement": (len(vectors) - len(different)) / len(vectors),
        "vectors": len(vectors),
        "differences": different[:_MAX_NAMED],
    }


def _answers(asker: RecordScorer, record: Mapping[str, Any]) -> bool:
    from fourways_runtime.errors import ModelError
    from fourways_runtime.scoring.single import RecordRefused

    try:
        asker.ask(record)
    except (ModelError, RecordRefused):
        return False
    return True


def _timed(asker: RecordScorer, records: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the durations of predictions in seconds, sorted."""
    if not records:
        return [math.inf]
    times: list[float] = []
    end = perf_counter() + PATIENCE
    while len(times) < CALLS and perf_counter() < end:
        record = records[len(times) % len(records)]
        started = perf_counter()
        asker.ask(record)
        times.append(perf_counter() - started)
    return sorted(times)


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    try:
        # Not getrusage: its value in a child starts at the parent's peak.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hung(error: ModelHangs) -> None:
    """End this process, because a call into the model does not return."""
    print(json.dumps({"failed": f"{error.reason}: {error}"}), flush=True)
    os._exit(0)


def _main() -> int:
    from fourways_runtime.errors import WorkloadError
    from fourways_runtime.model_watch import WATCH

    WATCH.start(_hung)
    try:
        answer = _measure(json.load(sys.stdin))
    except WorkloadError as error:
        answer = {"failed": f"{error.reason}: {error}"}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
