"""One model in all modes: a deployment a mode, its golden vectors as each mode is asked them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fourways_api import ModelDeployment, parse

Json = dict[str, Any]

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFEST = EXAMPLES / "parity" / "churn.yaml"
GOLDEN = EXAMPLES / "artifacts" / "churn" / "golden.jsonl"
MODES = ("batch", "realtime", "streaming", "edge")
TYPES = {"float32": "FP32", "int32": "INT32", "string": "BYTES"}


def documents() -> dict[str, Json]:
    """By mode: the example's manifest with that mode, and a name of its own."""
    found = {}
    for mode in MODES:
        document = yaml.safe_load(MANIFEST.read_text("utf-8"))
        document["metadata"]["name"] = f"parity-{mode}"
        document["spec"]["mode"] = mode
        found[mode] = document
    return found


def deployment() -> ModelDeployment:
    return parse(yaml.safe_load(MANIFEST.read_text("utf-8")))


def vectors() -> dict[str, Json]:
    """Golden vectors by the entity key that `prepare.py` gives them in the batch's table."""
    lines = GOLDEN.read_text("utf-8").splitlines()
    return {f"golden-{i:02}": json.loads(line) for i, line in enumerate(lines)}


def question(key: str, inputs: Json) -> Json:
    """A V2 request with all inputs and the entity key."""
    spec = deployment().spec
    tensors = [_tensor(spec.contract.entity_key.name, "BYTES", key)]
    tensors += [_tensor(f.name, TYPES[f.type], inputs[f.name]) for f in spec.contract.inputs]
    return {"inputs": tensors}


def _tensor(name: str, datatype: str, value: Any) -> Json:
    return {"name": name, "datatype": datatype, "shape": [1], "data": [value]}


def row(answer: Json) -> Json:
    """The outputs of a V2 answer for one row."""
    return {output["name"]: output["data"][0] for output in answer["outputs"]}


def disagreements(answers: Mapping[str, Json]) -> list[str]:
    """Of answers by key: where they are not the golden ones, within the declared tolerance."""
    golden = deployment().spec.contract.golden_vectors
    assert golden is not None
    found = []
    for key, vector in vectors().items():
        for name, wanted in vector["outputs"].items():
            got = answers[key][name]
            if isinstance(wanted, str):
                same = got == wanted
            else:
                allowed = golden.absolute_tolerance + golden.relative_tolerance * abs(wanted)
                same = abs(got - wanted) <= allowed
            if not same:
                found.append(f"{key}.{name} is {got}, not {wanted}")
    return found
