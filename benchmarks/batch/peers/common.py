"""Shared code of the peers: the model, its loop, and the output format of the measurements."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

NAMES = [f"x{at}" for at in range(20)]
BATCH = 4096
"""Rows per call of onnxruntime: as fast as any other size, and small."""


def session(path: str = "") -> Any:
    """Load the model with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path or sys.argv[1], options)


def scored(model: Any, columns: list[Any]) -> Any:
    """Score columns of N floats each; return (N,) of float32."""
    rows = len(columns[0])
    out = np.empty(rows, np.float32)
    matrix = np.empty((min(BATCH, rows), len(columns)), np.float32)
    for start in range(0, rows, BATCH):
        part = matrix[: min(BATCH, rows - start)]
        for at, column in enumerate(columns):
            part[:, at] = column[start : start + BATCH]
        out[start : start + BATCH] = model.run(None, {"input": part})[0][:, 0]
    return out


def measured(work: Callable[[], object]) -> None:
    """Run the work, with everything loaded; print how long it took."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    found = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found["peak_mib"] = int(status["VmHWM"].split()[0]) / 1024
    print(json.dumps(found), flush=True)
    os._exit(0)
