"""What a device does not import: pandas, however it is installed, and nothing of a workload."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourways_api import Contract
from fourways_api.base import SKIP_RULES
from fourways_runtime.scoring.decode import Decoder

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


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("categories", [None, ["a", "é"]])
def test_few_texts_and_many_are_judged_alike(nullable: bool, categories: list[str] | None) -> None:
    field = {"name": "t", "type": "string", "nullable": nullable}
    if categories is not None:
        field["categories"] = categories
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [field],
            "outputs": [{"name": "y", "type": "float32"}],
        },
        context=SKIP_RULES,
    )
    texts = ["a", "é", "", None, "\0", "x" * 100, "\ud800", np.str_("a"), b"a", 7, float("nan")]
    decoder = Decoder(contract)

    def judged(values: list[Any]) -> list[tuple[int, str]]:
        cells = np.empty(len(values), object)
        cells[:] = values
        keys = np.arange(len(values))
        records, rejects = decoder.check(keys, {"t": cells}, keys)
        found = {
            int(row): repr(text)
            for row, text in zip(records.rows, records.columns["t"], strict=True)
        }
        return sorted((found | {it.row: it.reason for it in rejects}).items())

    # A text at a time, and all of them among a hundred.
    alone = [judged([text])[0][1] for text in texts]
    among = [said for _, said in judged([*texts, *["a"] * 100])][: len(texts)]
    assert alone == among
