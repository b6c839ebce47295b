"""What a model server's process imports for an ONNX model, from its start to its answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from fourways_cli.embedded.ports import free_port
from tests.kit.server_process import started
from tests.kit.serving_plane import MIXED, NO_TLS, configure, metric, mixed, tensor
from tests.kit.waiting import until

pytestmark = pytest.mark.embedded

NOTED = """
import sys
def note(event, arguments, file=open({file!r}, "a", 1)):
    if event == "import":
        file.write(f"{{arguments[0]}}\\n")
sys.addaudithook(note)
"""

UNUSED = {
    "cel",
    "cryptography",
    "fsspec",
    "fourways_cli",
    "fourways_operator",
    "google.protobuf.descriptor_pb2",
    "google.protobuf.internal.python_message",
    "grpc",
    "httpx",
    "jsonschema",
    "kubernetes",
    "onnx",
    "pandas",
    "psycopg",
    "pyarrow",
    "scipy",
    "skops",
    "sklearn",
    "sqlite3",
    "yaml",
}
"""Each costs a tenth of a second or several megabytes, and an ONNX model needs none of them."""


@pytest.mark.parametrize("compared", [False, True], ids=["plain", "quality"])
def test_a_served_onnx_model_imports_no_library_that_it_does_not_need(
    tmp_path: Path, compared: bool
) -> None:
    (tmp_path / "image").mkdir()
    imported = tmp_path / "imported"
    (tmp_path / "image" / "sitecustomize.py").write_text(NOTED.format(file=str(imported)))
    record = {"word": "ü", "flag": True, "big": 7, "grid": [[1, 2], [3, 4]]}
    golden = {"inputs": record, "outputs": {f"{name}_out": v for name, v in record.items()}}
    (tmp_path / "golden.jsonl").write_text(json.dumps(golden))
    vectors = {"uri": (tmp_path / "golden.jsonl").as_uri()}
    quality = {"stored": {"output": "word_out", "share": "100%"}} if compared else {}
    schema = {**MIXED, "goldenVectors": vectors}
    config = configure(tmp_path, mixed(), schema, port=free_port(), **quality)
    address = tmp_path / "store" / "uri"
    address.parent.mkdir()
    address.write_text(f"sqlite:///{tmp_path}/store.db")
    paths = config.paths.model_copy(update={"store_uri_file": str(address)})
    config = config.model_copy(update={"paths": paths})
    many = [
        tensor("word", "BYTES", ["a", "ü"] * 50),
        tensor("flag", "BOOL", [True] * 100),
        tensor("big", "UINT64", [1] * 100),
        tensor("grid", "FP64", np.ones(400).tolist(), [100, 2, 2]),
        tensor("id", "INT64", list(range(100))),
    ]
    wrong = [*many[:3], tensor("grid", "FP64", ["x"] * 400, [100, 2, 2])]
    with (
        started(tmp_path, config) as running,
        httpx.Client(base_url=running.url, verify=NO_TLS, timeout=30) as client,
    ):
        running.until("serving")
        for body, status in (
            ({"inputs": many}, 200),
            ({"inputs": many, "parameters": {"binary_data_output": True}}, 200),
            ({"inputs": wrong}, 400),
        ):
            answer = client.post("/v2/models/churn/infer", json=body)
            assert answer.status_code == status, answer.text
        for path in ("/metrics", "/v2/models/churn", "/v2/models/churn/openapi.json"):
            assert client.get(path).status_code == 200
        if compared:
            stored = "fourways_quality_answers_total"
            until(lambda: metric(client.get("/metrics").text, stored) == 200, "stored answers")
    names = {f"{name}." for name in imported.read_text().split()}
    loaded = {
        wanted
        for wanted in UNUSED | {"onnxruntime"}
        if any(name.startswith(f"{wanted}.") for name in names)
    }
    assert loaded == {"onnxruntime", *({"sqlite3"} if compared else ())}


def test_a_model_server_that_writes_to_postgresql_loads_no_arrow() -> None:
    code = (
        "import sys; from fourways_runtime.workloads.serving import recording;"
        " from fourways_runtime.io.store import postgres_database;"
        " print(*(set(sys.modules) & {'pyarrow', 'pandas'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
