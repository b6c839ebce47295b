"""A model server in this process, on a real socket; and the models it serves."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from onnx import TensorProto, helper
from prometheus_client import CollectorRegistry

from fourways_api.runtime_config import ServerConfig
from fourways_http import Server
from fourways_runtime.v2 import batcher as batchers
from fourways_runtime.v2.app import ModelServer
from fourways_runtime.v2.batcher import Batcher
from fourways_runtime.workloads.serving import loading, shell
from fourways_runtime.workloads.serving.recording import AnswerRecorder
from tools.kit.models import onnx_bytes

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares each client the reading of certificates it has no use for."""

STRING = TensorProto.STRING


def mixed() -> bytes:
    """Echo a text, a truth, a whole number and a grid, each through an Identity."""
    kinds = {
        "word": (STRING, ["N"]),
        "flag": (TensorProto.BOOL, ["N"]),
        "big": (TensorProto.UINT64, ["N"]),
        "grid": (TensorProto.DOUBLE, ["N", 2, 2]),
    }
    return onnx_bytes(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds],
        [(name, *kind) for name, kind in kinds.items()],
        [(f"{name}_out", *kind) for name, kind in kinds.items()],
    )


MIXED: dict[str, Any] = {
    "entityKey": {"name": "id", "type": "int64"},
    "inputs": [
        {"name": "word", "type": "string", "categories": ["a", "ü", "long one"]},
        {"name": "flag", "type": "bool"},
        {"name": "big", "type": "uint64"},
        {"name": "grid", "type": "float64", "shape": [2, 2]},
    ],
    "outputs": [
        {"name": "word_out", "type": "string"},
        {"name": "flag_out", "type": "bool"},
        {"name": "big_out", "type": "uint64"},
        {"name": "grid_out", "type": "float64", "shape": [2, 2]},
    ],
}


def configure(root: Path, raw: bytes, schema: dict[str, Any], **more: Any) -> ServerConfig:
    """Write the model down and return the configuration that names it; ``more`` changes it."""
    (root / "volumes" / "data").mkdir(parents=True, exist_ok=True)
    (root / "volumes" / "data" / "model.onnx").write_bytes(raw)
    document = {
        "namespace": "shop",
        "name": "churn",
        "host": "127.0.0.1",
        "model": {"uri": "pvc://data/model.onnx", "version": "v1"},
        "contract": schema,
        "paths": {
            "volumesRoot": str(root / "volumes"),
            "cacheDir": str(root / "cache"),
            "terminationLog": str(root / "last-words"),
        },
    }
    return ServerConfig.model_validate(document | more)


@dataclass
class Serving:
    """A server that listens."""

    server: Server
    app: ModelServer
    client: httpx.AsyncClient
    batcher: Batcher

    async def infer(self, *inputs: dict[str, Any], **more: Any) -> httpx.Response:
        return await self.client.post(
            "/v2/models/churn/infer", json={"inputs": list(inputs), **more}
        )

    async def metric(self, name: str) -> float:
        return metric((await self.client.get("/metrics")).text, name)


def metric(text: str, name: str) -> float:
    """Return a metric's value from its exposition."""
    return next(float(line.split()[-1]) for line in text.splitlines() if line.split(" ")[0] == name)


def tensor(name: str, datatype: str, data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


@contextlib.asynccontextmanager
async def serving(
    config: ServerConfig,
    max_waiting: int = batchers.MAX_WAITING,
    recorder: AnswerRecorder | None = None,
) -> AsyncIterator[Serving]:
    registry = CollectorRegistry()
    server, app = shell.build(config, registry)
    await server.start("127.0.0.1", 0)
    loaded = loading.load_model(config)
    batcher = Batcher(
        loaded.scorer,
        recorder.recording(loaded.renderer) if recorder else loaded.renderer,
        app.metrics,
        max_rows=config.max_batch_rows,
        warm_up=loaded.warm_up,
        row_values=loaded.renderer.row_values,
        max_waiting=max_waiting,
        timeout=config.timeout_seconds,
    )
    enricher, _ = await shell._features(config, registry) or (None, None)
    app.use(loaded.reader, batcher, enricher, loaded.known)
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", limits=limits, verify=NO_TLS
    ) as client:
        yield Serving(server, app, client, batcher)
    await server.drain(0, 1)
    await app.close()
