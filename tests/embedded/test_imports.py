"""What a process does not import: pandas, and libraries that it does not use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.embedded

ASKED = """
import json, sys
before = list(sys.meta_path)
import numpy as np
from fourways_agent.device import Device  # what a program imports
from fourways_api import Contract
from fourways_api.base import SKIP_RULES
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.single import RecordRefused, RecordScorer

class Model:
    inputs = tuple(Tensor(n, k, (None, *s)) for n, k, s in json.loads(sys.argv[2]))
    outputs = (Tensor("y", "float32", (None, 1)),)
    def predict(self, tensors):
        return {"y": np.zeros((1, 1), np.float32)}

scorer = RecordScorer(Contract.model_validate(json.loads(sys.argv[1]), context=SKIP_RULES), Model())
for record in json.loads(sys.argv[3]):
    try:
        print(scorer.ask(record)["y"])
    except RecordRefused as error:
        print(error)
assert "pandas" not in sys.modules
assert "fourways_runtime.workloads" not in sys.modules
assert "fourways_runtime.io" not in sys.modules
assert sys.meta_path == before
"""


LOADED = """
import ast, importlib, json, pkgutil, sys
from pathlib import Path
import fourways_agent
before = list(sys.meta_path)
for module in pkgutil.iter_modules(fourways_agent.__path__):
    if module.name != "__main__":
        importlib.import_module(f"fourways_agent.{module.name}")
for file in Path(fourways_agent.__path__[0]).glob("*.py"):
    for node in ast.walk(ast.parse(file.read_text())):  # imports inside functions too
        if isinstance(node, ast.ImportFrom) and not node.level and "fourways" in node.module:
            importlib.import_module(node.module)
assert sys.meta_path == before
print(json.dumps(sorted(sys.modules)))
"""


def test_nothing_of_io_and_workloads_is_loaded_in_the_agents_process() -> None:
    told = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=False, timeout=120
    )
    assert told.returncode == 0, told.stderr
    loaded = json.loads(told.stdout)
    ours = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("fourways_")}
    assert "fourways_runtime.v2" in ours
    assert not ours & {"fourways_runtime.io", "fourways_runtime.workloads"}
    libraries = {name.split(".")[0] for name in loaded}
    ours_too = {"fourways_cli", "fourways_operator"}
    assert not libraries & ours_too
    assert not libraries & {"psycopg", "fsspec", "httpx", "httpcore", "aiokafka", "nats", "pandas"}


def test_a_record_is_answered_without_importing_pandas(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("raise SystemExit('pandas is imported')\n")
    kinds = {"f": "float32", "i": "int32", "b": "bool", "t": "string", "c": "string"}
    inputs: list[dict[str, Any]] = [
        {"name": name, "type": kind, "nullable": kind == "string"} for name, kind in kinds.items()
    ]
    inputs[-1]["categories"] = ["red", "blue"]
    inputs.append({"name": "v", "type": "string", "shape": [2]})
    schema = {
        "entityKey": {"name": "id"},
        "inputs": inputs,
        "outputs": [{"name": "y", "type": "float32"}],
    }
    good = {"f": 1.5, "i": 2, "b": True, "t": "é", "c": "red", "v": ["x", "y"]}
    records = [good, good | {"t": None}, good | {"c": "green"}, good | {"t": 7}]
    tensors = [(name, kind, []) for name, kind in kinds.items()] + [("v", "string", [2])]
    asked = subprocess.run(
        [sys.executable, "-c", ASKED, *map(json.dumps, (schema, tensors, records))],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert asked.returncode == 0, asked.stderr
    answers = asked.stdout.splitlines()
    assert answers[:2] == ["0.0", "0.0"]
    assert "'green' is not one of" in answers[2]
    assert answers[3].startswith("t: ")


def test_importing_the_models_and_the_fetcher_loads_none_of_the_heavy_libraries() -> None:
    heavy = "onnxruntime skops sklearn xgboost lightgbm kserve s3fs gcsfs adlfs aiohttp google"
    program = (
        "import sys, fourways_runtime.scoring.model, fourways_runtime.io.fetch;"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_numpy_is_told_before_it_is_imported_and_only_where_nobody_chose() -> None:
    program = (
        "import os, sys; from fourways_runtime.v2.simd import VARIABLE, prefer_narrow_loops;"
        "assert 'numpy' not in sys.modules; told = prefer_narrow_loops();"
        "assert told == (VARIABLE in os.environ); import numpy;"
        "assert (numpy.arange(3) * 2).tolist() == [0, 2, 4]; assert not prefer_narrow_loops()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
