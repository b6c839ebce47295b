"""A field that nothing reads is a promise nobody keeps: each one must change something.

Every field of the spec has an entry in ``fields.yaml`` that says how to change it. The change must
show in the planned objects, in the status, or in a worker's configuration. The last counts only
where the code of the workers reads an attribute of that name, because whole blocks of the spec
travel in it.
"""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fourways_api import ApiModel, Spec, check, parse
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_api.wording import model_in
from fourways_operator.facts import Facts, Json
from fourways_operator.modes import MODES
from fourways_operator.planning import plan_gateway
from fourways_operator.status import status_of
from tests.bad_manifests.cases import change, good
from tests.kit.planned import SETTINGS, containers, planned
from tests.kit.source import ROOT, production
from tests.kit.yaml_files import load_yaml

HERE = Path(__file__).parent
FIELDS: dict[str, dict[str, Any]] = load_yaml((HERE / "fields.yaml").read_text())

BLOCKS: dict[str, Any] = {
    "EDGE": {
        "targets": [{"name": "a", "budget": {"sizeMiB": 1, "memoryMiB": 1, "latencyMs": 1}}],
        "signing": {"secretName": "k"},
        "publish": "s3://b/a",
    },
    "LABELLED": [{"name": "label", "type": "string"}],
    "IMAGE": {"width": 8, "height": 8},
    "LABELS": {
        "uri": "pvc://models/labels.txt",
        "digest": f"sha256:{'0' * 64}",
        "credentials": {"secretName": "s"},
    },
    "TOKENS": {"maxLength": 8, "padToMultipleOf": 2, "padToken": "p"},
    "TOKENIZER": {
        "uri": "pvc://models/tokenizer.json",
        "digest": f"sha256:{'0' * 64}",
        "credentials": {"secretName": "s"},
    },
    "QUALITY": {
        "truth": {"uri": "pvc://data/truth.parquet", "credentials": {"secretName": "s"}},
        "label": "happened",
        "time": "at",
        "output": "churn",
        "metrics": ["AUC", "LogLoss"],
    },
    "TOPIC_QUALITY": {
        "topic": "labels",
        "label": "happened",
        "time": "at",
        "output": "score",
        "metrics": ["AUC"],
    },
    "TWO_OUTPUTS": [
        {"name": "churn", "type": "float32", "column": 1},
        {"name": "other", "type": "float32", "column": 0},
    ],
    "MONITORING": {
        "profile": {
            "uri": "pvc://models/profile.json",
            "digest": f"sha256:{'0' * 64}",
            "credentials": {"secretName": "s"},
        },
        "window": "1h",
        "maxDrift": 0.2,
    },
    "GOLDEN": {"uri": "file:///g.jsonl"},
    "STREAM": {"source": {"kafka": {"bootstrapServers": "k:9092", "topic": "t"}}},
    "QUERY": {"query": {"database": {"secretName": "d"}, "sql": "select 1"}},
    "FILES": {"files": {"uri": "s3://out/a", "credentials": {"secretName": "s"}}},
    "TABLE": {
        "table": {
            "database": {"secretName": "d"},
            "table": "t",
            "columns": [{"output": "churn", "column": "c"}],
        }
    },
    "NODES": [{"key": "zone", "operator": "In", "values": ["a"]}],
    "TAINTS": [{"key": "gpu", "value": "a100", "effect": "NoExecute"}],
    "ZONES": [{"topologyKey": "topology.kubernetes.io/zone"}],
    "RUNTIME": {"runtime": {"modelFormat": "tensorflow"}},
    "FEATURES": {
        "database": {"secretName": "d"},
        "table": "t",
        "defaults": [{"name": "image", "number": 1}],
    },
}
"""Blocks that several entries set first."""

WITHOUT_EFFECT = {
    "spec.model.digestPolicy": "read by the rule that a remote model has a digest",
    "spec.contract.inputs[0].description": "for people who read the manifest",
    "spec.contract.outputs[0].description": "for people who read the manifest",
    "spec.edge.description": "for people who read the manifest",
    "spec.streaming.maxReplicas": "held equal to minReplicas until consumers are scaled by lag",
}
"""Fields that change nothing, with the reason."""


def leaves(model: type[ApiModel], path: str) -> Iterator[tuple[str, str]]:
    """Yield path and Python name of every field that holds a value."""
    for name, info in model.model_fields.items():
        here = f"{path}.{info.alias}"
        inner = model_in(info.annotation)
        if inner is None:
            yield here, name
        else:
            listed = "tuple" in str(info.annotation)
            yield from leaves(inner, f"{here}[0]" if listed else here)


LEAVES = dict(leaves(Spec, "spec"))


def test_every_field_has_an_entry() -> None:
    assert set(WITHOUT_EFFECT) <= set(LEAVES)
    assert set(FIELDS) == set(LEAVES), "add the new field to fields.yaml, or remove the old one"


@pytest.mark.parametrize("field", LEAVES)
def test_a_change_of_the_field_shows(field: str) -> None:
    before, after = manifests(field)
    shows = outcome(before) != outcome(after)
    if not shows and LEAVES[field] in attributes_read_by_workers():
        shows = configurations(before) != configurations(after)
    assert shows or field in WITHOUT_EFFECT, f"nothing reads {field}"


def manifests(field: str) -> tuple[Json, Json]:
    """Return a valid manifest, and the same with the field changed."""
    entry = FIELDS[field]
    before = good()[entry.get("from", "batch")]
    before["metadata"] |= {"uid": "u", "generation": 1}
    for path, value in entry.get("with", {}).items():
        change(
            before,
            path,
            copy.deepcopy(BLOCKS.get(value, value)) if isinstance(value, str) else value,
        )
    after = copy.deepcopy(before)
    for path, value in {**entry.get("also", {}), field: entry["to"]}.items():
        change(after, path, value)
    return before, after


def outcome(document: Json) -> Any:
    """Return planned objects without the workers' configurations, status and gateway's route."""
    return _outcome(json.dumps(document))


@cache
def _outcome(text: str) -> Any:
    document: Json = json.loads(text)
    objects = _without_configurations(_objects(document))
    deployment = parse(document)
    facts = Facts(document, wanted=objects, now=datetime(2026, 3, 1, tzinfo=UTC))
    return (
        objects,
        status_of(facts, deployment=deployment),
        MODES[deployment.spec.choice().mode].route(deployment, None),
    )


def configurations(document: Json) -> list[str]:
    """Return what the workers and the gateway are told."""
    return [e["value"] for e in _environment(_objects(document)) if e["name"] == CONFIG_VARIABLE]


def _objects(document: Json) -> tuple[Json, ...]:
    return _planned(json.dumps(document))


@cache
def _planned(text: str) -> tuple[Json, ...]:
    document: Json = json.loads(text)
    deployment = parse(document)
    check(deployment)
    return (*planned(deployment), *plan_gateway("default", [document], SETTINGS))


def _environment(objects: tuple[Json, ...]) -> Iterator[Json]:
    for container in containers(objects):
        yield from container["env"]


def _without_configurations(objects: tuple[Json, ...]) -> tuple[Json, ...]:
    objects = copy.deepcopy(objects)
    for variable in _environment(objects):
        if variable["name"] == CONFIG_VARIABLE:
            variable["value"] = ""
    for obj in objects:
        # The name of an edge deployment's Job is a hash of its configuration.
        if obj["kind"] == "Job":
            obj["metadata"]["name"] = ""
    return objects


@cache
def attributes_read_by_workers() -> frozenset[str]:
    """Return the names of all attributes that the runtime's code reads."""
    texts = (text for path, text in production().items() if path.is_relative_to(ROOT / "runtimes"))
    nodes = (node for text in texts for node in ast.walk(ast.parse(text)))
    return frozenset(n.attr for n in nodes if isinstance(n, ast.Attribute))
