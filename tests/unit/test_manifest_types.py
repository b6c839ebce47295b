"""Manifests as typed objects: every type is there, and what they make is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from fourways import manifest as m
from fourways_api import InvalidSpec, Spec, parse
from fourways_api.base import ApiModel

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def reachable(kind: Any, found: set[type]) -> set[type]:
    if isinstance(kind, type) and issubclass(kind, ApiModel) and kind not in found:
        found.add(kind)
        for field in kind.model_fields.values():
            reachable(field.annotation, found)
    for each in get_args(kind):
        reachable(each, found)
    return found


def test_every_type_of_a_spec_can_be_imported() -> None:
    found = {kind.__name__ for kind in reachable(Spec, set())}
    assert found | {"Metadata", "ModelDeployment", "deployment"} == set(m.__all__)
    assert all(hasattr(m, name) for name in m.__all__)


def written(**changes: Any) -> m.ModelDeployment:
    spec = m.Spec(
        mode="batch",
        model=m.ModelReference(uri="pvc://models/churn.onnx", version="1"),
        contract=m.Contract(
            entity_key=m.EntityKey(name="customer"),
            inputs=(m.InputField(name="spend", type="float32", nullable=True),),
            outputs=(m.OutputField(name="score", type="float32"),),
        ),
        batch=m.Batch(
            schedule="0 3 * * 1",
            max_rejects="1%",
            source=m.BatchSource(uri="pvc://tables/customers.parquet", format="Parquet"),
        ),
    )
    return m.deployment("churn", spec.model_copy(update=changes), namespace="shop")


def test_typed_objects_make_the_manifest_of_the_same_fields() -> None:
    document = yaml.safe_load(written().to_yaml())
    assert document["metadata"] == {"name": "churn", "namespace": "shop"}
    assert document["spec"]["contract"]["entityKey"] == {"name": "customer"}
    assert document["spec"]["batch"]["maxRejects"] == "1%"
    assert "workers" not in document["spec"]["batch"], "only what was given"
    assert parse(document) == written()


def test_a_rule_that_is_broken_is_named_with_the_fix() -> None:
    with pytest.raises(InvalidSpec, match="mode streaming requires the block"):
        written(mode="streaming")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_the_same_made_of_typed_objects(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    read = parse(document)
    made = m.deployment(read.metadata.name, read.spec, labels=read.metadata.labels)
    assert made == read
    assert yaml.safe_load(made.to_yaml())["spec"] == document["spec"]
