"""The examples are what they say: valid manifests, pinned files, models that answer as recorded.

Deliberately apart from the runtime's pipeline: what is asked here is whether the files are right,
with as little code as possible between them and onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest

from fourways_api import check, load_documents
from tests.kit.examples import EXAMPLES, deployment, digest, located, vectors

MODES = {
    "churn": "batch",
    "segmentation": "batch",
    "sales-forecast": "batch",
    "recommendations": "batch",
    "file-type": "batch",
    "come-back": "realtime",
    "water-flow": "streaming",
    "file-type-on-device": "edge",
    "kafka/water-flow": "streaming",
    "parity/churn": "batch",
}
""""Every manifest, and the mode it comes to."""
NAMES = tuple(MODES)
TRAINED = (
    "churn",
    "segmentation",
    "sales-forecast",
    "recommendations",
    "file-type",
    "come-back",
    "water-flow",
)
COMMITTED_LIMIT = 300_000


def test_every_manifest_is_listed() -> None:
    found = (path.relative_to(EXAMPLES).with_suffix("") for path in EXAMPLES.rglob("*.yaml"))
    assert sorted(path.as_posix() for path in found) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_is_valid_and_of_its_mode(name: str) -> None:
    found = deployment(name)
    check(found)
    assert found.metadata.name == Path(name).name
    assert found.spec.choice().mode == MODES[name]


def test_there_is_an_example_for_each_mode() -> None:
    assert set(MODES.values()) == {"batch", "realtime", "streaming", "edge"}


def test_the_kafka_variant_differs_in_its_source_alone() -> None:
    nats, kafka = (
        load_documents((EXAMPLES / name).read_text("utf-8"))[0]
        for name in ("water-flow.yaml", "kafka/water-flow.yaml")
    )
    assert nats["spec"]["streaming"].pop("source").keys() == {"nats"}
    assert kafka["spec"]["streaming"].pop("source").keys() == {"kafka"}
    assert nats == kafka


def test_the_device_example_has_the_batch_example_s_contract() -> None:
    batch, edge = deployment("file-type").spec, deployment("file-type-on-device").spec
    assert (batch.contract, batch.model) == (edge.contract, edge.model)


def test_the_model_of_all_modes_has_the_settings_of_all_modes() -> None:
    spec = deployment("parity/churn").spec
    assert all((spec.batch, spec.realtime, spec.streaming, spec.edge))
    assert spec.contract == deployment("churn").spec.contract


def test_inputs_of_the_till_and_of_the_database_make_the_contract() -> None:
    spec = deployment("come-back").spec
    assert spec.realtime is not None
    assert spec.realtime.features is not None
    looked_up = spec.realtime.features.inputs
    table = pq.read_table(EXAMPLES / "artifacts/come-back/features.parquet")
    assert set(table.column_names) == {"customer_id", *looked_up}
    missing = {f.name for f in spec.contract.inputs if f.nullable}
    defaults = {default.name for default in spec.realtime.features.defaults}
    # Whoever is not in the table can still be asked for.
    assert set(looked_up) == missing | defaults


def test_the_series_gives_the_contract_s_events() -> None:
    table = pq.read_table(EXAMPLES / "artifacts/water-flow/series.parquet")
    assert table.column_names == ["reading", "hour", "flow"]
    assert len(set(table["reading"].to_pylist())) == table.num_rows == 1268


@pytest.mark.parametrize("name", NAMES)
def test_digests_are_the_files(name: str) -> None:
    spec = deployment(name).spec
    golden = spec.contract.golden_vectors
    assert golden is not None
    assert golden.digest == digest(located(golden.uri))
    assert spec.model.digest == digest(located(spec.model.uri))


@pytest.mark.parametrize("name", NAMES)
def test_golden_vectors_name_the_contract_s_fields(name: str) -> None:
    contract = deployment(name).spec.contract
    found = vectors(name)
    assert len(found) == 20
    for vector in found:
        assert set(vector["inputs"]) == {field.name for field in contract.inputs}
        assert set(vector["outputs"]) == {field.name for field in contract.outputs}


@pytest.mark.parametrize("name", TRAINED)
def test_model_answers_the_golden_vectors(name: str) -> None:
    spec = deployment(name).spec
    golden = spec.contract.golden_vectors
    assert golden is not None
    found = vectors(name)
    session = onnxruntime.InferenceSession(located(spec.model.uri))
    named = [output.name for output in session.get_outputs()]
    raw = dict(zip(named, session.run(None, TENSORS[name](found)), strict=True))
    for row, vector in enumerate(found):
        for output in spec.contract.outputs:
            answer = raw[output.tensor or output.name][row]
            if output.column is not None:
                answer = answer[output.column]
            if output.reduce:
                answer = {"ArgMax": np.argmax, "Max": np.max}[output.reduce](answer)
            wanted = vector["outputs"][output.name]
            if output.categories:
                assert output.categories[int(answer)] == wanted, (row, output.name)
            elif output.type == "string":
                assert answer.tolist() == wanted, (row, output.name)
            else:
                allowed = {"atol": golden.absolute_tolerance, "rtol": golden.relative_tolerance}
                np.testing.assert_allclose(answer, wanted, **allowed, err_msg=output.name)


def churn_tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    # A tensor an input, of one column each.
    return {
        name: np.array(
            [[vector["inputs"][name]] for vector in found],
            dtype=object if name == "cohort" else np.float32,
        )
        for name in found[0]["inputs"]
    }


def features_of(name: str) -> Callable[[list[dict[str, dict[str, Any]]]], dict[str, Any]]:
    # One tensor, whose columns are the contract's inputs in order.
    order = [field.name for field in deployment(name).spec.contract.inputs]

    def tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
        rows = [[vector["inputs"][name] for name in order] for vector in found]
        return {"features": np.array(rows, np.float32)}

    return tensors


def file_tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return {"bytes": np.array([vector["inputs"]["content"] for vector in found], np.int32)}


def rated_tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return {"rated": np.array([vector["inputs"]["rated"] for vector in found], np.int32)}


def reading_tensors(found: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    types = {"hour": np.int32, "flow": np.float32, "before": np.float32}
    return {n: np.array([v["inputs"][n] for v in found], t) for n, t in types.items()}


TENSORS = {
    "churn": churn_tensors,
    "segmentation": features_of("segmentation"),
    "sales-forecast": features_of("sales-forecast"),
    "recommendations": rated_tensors,
    "file-type": file_tensors,
    "come-back": features_of("come-back"),
    "water-flow": reading_tensors,
}


def source(name: str) -> pa.Table:
    batch = deployment(name).spec.batch
    assert batch is not None
    assert batch.source.uri is not None
    read = {"Parquet": pq.read_table, "CSV": pc.read_csv, "JSONLines": pj.read_json}
    return read[batch.source.format](located(batch.source.uri))


@pytest.mark.parametrize("name", ["churn", "segmentation", "sales-forecast", "recommendations"])
def test_source_has_the_contract_s_columns_and_distinct_keys(name: str) -> None:
    spec = deployment(name).spec
    table = source(name)
    assert {spec.contract.entity_key.name, *(f.name for f in spec.contract.inputs)} == set(
        table.column_names
    )
    keys = table[spec.contract.entity_key.name].to_pylist()
    assert len(set(keys)) == len(keys)


def test_rows_outside_the_churn_contract_are_few_enough_to_publish() -> None:
    spec = deployment("churn").spec
    assert spec.batch is not None
    assert spec.batch.max_rejects == "1%"
    table = pq.read_table(located(spec.batch.source.uri))
    assert table.num_rows == 2357
    unpaid = sum(spend <= 0 for spend in table["spend"].to_pylist())
    assert unpaid == 8
    # Once-only customers: missing, and allowed to be.
    assert any(gap is None or math.isnan(gap) for gap in table["mean_gap_days"].to_pylist())


def test_customers_of_the_segmentation_keep_its_contract() -> None:
    rows = source("segmentation").to_pylist()
    assert len(rows) == 23_502
    assert min(row["spend"] for row in rows) > 0
    assert {row["months_since_last"] for row in rows} == set(range(13))


def test_users_get_ten_movies_that_they_have_not_rated_lately() -> None:
    rated = source("recommendations")["rated"].to_pylist()
    assert len(rated) == 671
    assert {len(movies) for movies in rated} == {50}
    for vector in vectors("recommendations"):
        outputs = vector["outputs"]
        assert {len(values) for values in outputs.values()} == {10}
        assert len({*outputs["movie_ids"]} - {*vector["inputs"]["rated"]}) == 10
        assert outputs["scores"] == sorted(outputs["scores"], reverse=True)


@pytest.mark.parametrize("name", ["churn", "segmentation", "sales-forecast", "recommendations"])
def test_a_batch_example_has_a_page_that_its_manifest_names(name: str) -> None:
    page = f"docs/examples/{name}.md"
    assert page in (EXAMPLES / f"{name}.yaml").read_text("utf-8")
    assert f"fourways up examples/{name}.yaml" in (EXAMPLES.parent / page).read_text("utf-8")


def test_committed_files_are_small() -> None:
    made_here = {
        "file-type/model.onnx",
        "file-type/source.parquet",
        "churn/golden.parquet",
        "come-back/shop.db",
        "come-back/shop.sql",
    }
    folder = EXAMPLES / "artifacts"
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in made_here
    }
    assert max(sizes.values()) < COMMITTED_LIMIT
    assert sum(sizes.values()) < 1_000_000
