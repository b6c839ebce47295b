"""Bundles built on this machine: keys, models, configurations, and the folder they end in."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper

from fourways_api import RunReport
from fourways_api.runtime_config import EdgeConfig
from fourways_runtime.workloads.edge.build import build
from fourways_runtime.workloads.edge.sign import sign_bundles
from tests.kit.secret_files import secret_folder
from tools.kit.models import FLOAT, LINEAR, linear, onnx_bytes

WIDE = 64
ROOMY = {"sizeMiB": 64, "memoryMiB": 4096, "latencyMs": 60_000, "minAgreement": 0.9}


@cache
def key_pair() -> tuple[bytes, bytes]:
    """Return a P-256 key and its public half, both PEM, as openssl makes them."""
    private = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"],
        check=True,
        capture_output=True,
    ).stdout
    return private, public_half(private)


def public_half(private: bytes) -> bytes:
    return subprocess.run(
        ["openssl", "ec", "-pubout"], input=private, check=True, capture_output=True
    ).stdout


def matrix(seed: int = 1) -> bytes:
    """A small network of two products, which quantisation likes: (N, 64) to (N, 3)."""
    random = np.random.default_rng(seed)
    weights = [
        ("w1", random.normal(0, 0.2, (WIDE, 256)).astype(np.float32)),
        ("w2", random.normal(0, 0.2, (256, 3)).astype(np.float32)),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    return onnx_bytes(nodes, [("x", FLOAT, ["N", WIDE])], [("y", FLOAT, ["N", 3])], weights)


MATRIX: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "x", "type": "float32", "shape": [WIDE]}],
    "outputs": [
        {
            "name": "label",
            "type": "string",
            "tensor": "y",
            "reduce": "ArgMax",
            "categories": ["a", "b", "c"],
        },
        {"name": "best", "type": "float32", "tensor": "y", "reduce": "Max"},
    ],
}


def matrix_golden(raw: bytes, vectors: int = 40) -> list[dict[str, Any]]:
    session = onnxruntime.InferenceSession(raw)
    inputs = np.random.default_rng(7).normal(0, 1, (vectors, WIDE)).astype(np.float32)
    answers = session.run(None, {"x": inputs})[0]
    return [
        {
            "inputs": {"x": row.tolist()},
            "outputs": {"label": "abc"[int(answer.argmax())], "best": float(answer.max())},
        }
        for row, answer in zip(inputs, answers, strict=True)
    ]


def linear_golden(scale: float = 1.0) -> list[dict[str, Any]]:
    return [
        {
            "inputs": {"age": age, "spend": 2, "rate": 1},
            "outputs": {"score": scale * (0.5 * age - 3.875)},
        }
        for age in (30, 60, 90)
    ]


def edge_config(
    root: Path,
    raw: bytes | None = None,
    schema: dict[str, Any] | None = None,
    golden: list[dict[str, Any]] | None = None,
    *,
    tolerance: float = 1e-3,
    budget: dict[str, Any] | None = None,
    name: str = "churn",
    version: str = "v1",
    edge: dict[str, Any] | None = None,
    **more: Any,
) -> EdgeConfig:
    """Write model, vectors and key beneath ``root``; return the configuration that names them."""
    data = root / "volumes" / "data"
    data.mkdir(parents=True, exist_ok=True)
    (root / "volumes" / "out").mkdir(exist_ok=True)
    (data / "model.onnx").write_bytes(raw if raw is not None else linear())
    vectors = linear_golden() if golden is None else golden
    (data / "golden.jsonl").write_text("".join(json.dumps(it) + "\n" for it in vectors))
    secret = secret_folder(root / "secrets" / "device-key")
    (secret / "signing-key.pem").write_bytes(key_pair()[0])
    contract = {
        **(schema or LINEAR),
        "goldenVectors": {
            "uri": "pvc://data/golden.jsonl",
            "absoluteTolerance": tolerance,
            "relativeTolerance": 0,
        },
    }
    document = {
        "namespace": "shop",
        "name": name,
        "model": {"uri": "pvc://data/model.onnx", "version": version},
        "contract": contract,
        "edge": {
            "targets": [{"name": "door", "budget": budget or ROOMY}],
            "signing": {"secretName": "device-key"},
            "publish": "pvc://out/bundles",
        }
        | (edge or {}),
        "paths": {
            "volumesRoot": str(root / "volumes"),
            "secretsRoot": str(root / "secrets"),
            "cacheDir": str(root / "cache"),
            "terminationLog": str(root / "last-words"),
        },
    }
    return EdgeConfig.model_validate(document | more)


def published(root: Path, name: str = "churn", target: str = "door") -> Path:
    return root / "volumes" / "out" / "bundles" / name / target


def document(folder: Path, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blob(folder, digest).read_bytes())
    return found


def blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def built_and_signed(config: EdgeConfig, clock: Callable[[], float] = time.time) -> RunReport:
    """Build, sign and publish, as the two containers of the Job do one after the other."""
    assert build(config).bundles == ()
    return sign_bundles(config, clock)
