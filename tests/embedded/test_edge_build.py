"""Bundles really measured, of real models, by the very process a Job runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fourways_agent import Device
from fourways_agent.state import DeviceSettings, Store
from fourways_agent.update import update
from fourways_api import RunReport
from fourways_api.runtime_config import EdgeConfig
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import BudgetExceeded
from fourways_runtime.scoring.golden import compare, read_vectors
from fourways_runtime.scoring.model.onnx_model import load_onnx
from fourways_runtime.scoring.single import RecordScorer
from fourways_runtime.workloads.edge import build as building
from fourways_runtime.workloads.edge import variants
from fourways_runtime.workloads.edge.judge import MIB, Measured
from tests.kit.edge_plane import (
    MATRIX,
    ROOMY,
    blob,
    built_and_signed,
    document,
    edge_config,
    key_pair,
    matrix,
    matrix_golden,
    published,
)
from tests.kit.edge_rig import Publisher, device, gateway_of
from tests.kit.litert import WEIGHTS, dense

pytestmark = pytest.mark.embedded

EXAMPLES = Path(__file__).parents[2] / "examples"


def real_model(name: str) -> bytes:
    if name == "file-type":
        magika = pytest.importorskip("magika")
        found = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
        return found.read_bytes()
    return (EXAMPLES / "artifacts" / name / "model.onnx").read_bytes()


def real_config(root: Path, name: str) -> EdgeConfig:
    spec = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["spec"]
    lines = (EXAMPLES / "artifacts" / name / "golden.jsonl").read_text().splitlines()
    schema = {key: spec["contract"][key] for key in ("entityKey", "inputs", "outputs")}
    golden = spec["contract"]["goldenVectors"]
    return edge_config(
        root,
        real_model(name),
        schema,
        [json.loads(line) for line in lines],
        tolerance=golden.get("absoluteTolerance", 1e-4),
        version=spec["model"]["version"],
        budget=ROOMY | {"minAgreement": 0.99},
    )


def report_of(folder: Path) -> dict[str, Any]:
    index = json.loads((folder / "index.json").read_bytes())
    about = document(folder, index["manifests"][2]["digest"])
    assert about["artifactType"] == layout.REPORT
    assert about["subject"]["digest"] == index["manifests"][0]["digest"]
    return document(folder, about["layers"][0]["digest"])


def test_the_job_publishes_what_a_device_can_use_and_says_so_in_its_last_words(
    tmp_path: Path,
) -> None:
    raw = matrix()
    config = edge_config(tmp_path, raw, MATRIX, matrix_golden(raw), tolerance=0.2)
    environment = {**os.environ, "FOURWAYS_CONFIG": json.dumps(config.to_json())}
    for step in ("edge-build", "edge-sign"):
        assert not published(tmp_path).exists()
        command = [sys.executable, "-m", "fourways_runtime", step]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    report = RunReport.model_validate_json((tmp_path / "last-words").read_text())
    bundle = report.bundles[0]
    folder = published(tmp_path)
    index = json.loads((folder / "index.json").read_bytes())
    assert (report.outcome, bundle.target) == ("Succeeded", "door")
    assert bundle.digest == index["manifests"][0]["digest"]
    told = report_of(folder)
    rows = {row["variant"]: row for row in told["variants"]}
    assert rows.keys() == {"fp32", "int8"}
    for row in rows.values():
        assert row["fails"] == []
        assert row["agreement"] >= 0.9
        assert 0 < row["p50Ms"] <= row["p99Ms"]
        assert row["memoryBytes"] > 2**24
    assert rows["int8"]["sizeBytes"] < 0.8 * rows["fp32"]["sizeBytes"]
    assert told["variant"] == bundle.variant
    manifest = document(folder, bundle.digest)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    described = document(folder, manifest["config"]["digest"])
    assert described["descriptor"] == {"name": "churn", "version": "v1"}
    assert described["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    for layer in manifest["layers"]:
        assert blob(folder, layer["digest"]).stat().st_size == layer["size"]


def test_the_same_inputs_are_the_same_manifest_wherever_they_are_built(tmp_path: Path) -> None:
    raw = matrix()
    digests, quantised = set(), set()
    for name in ("a", "b"):
        root = tmp_path / name
        # So tight that integers never agree: which of two good ones is faster, chance decides.
        config = edge_config(root, raw, MATRIX, matrix_golden(raw), tolerance=1e-5)
        bundle = built_and_signed(config).bundles[0]
        assert bundle.variant == "fp32"
        digests.add(bundle.digest)
        model = root / "volumes" / "data" / "model.onnx"
        quantised.add(variants.int8(model, root).read_bytes())
    assert (len(digests), len(quantised)) == (1, 1)


def test_another_measurement_of_the_same_model_does_not_change_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(seed: int, fp32: float, int8: float) -> tuple[str, str]:
        times = {"fp32": fp32, "int8": int8}
        monkeypatch.setattr(
            building,
            "measured",
            lambda files, **options: Measured(
                1, times[files[layout.ONNX_FILE].stem], 1, MIB, 1.0, 2
            ),
        )
        raw = matrix(seed)
        config = edge_config(tmp_path, raw, MATRIX, matrix_golden(raw), tolerance=0.2)
        found = built_and_signed(config).bundles[0]
        return found.variant, found.digest

    first = built(1, fp32=1.0, int8=2.0)
    assert first[0] == "fp32"
    assert built(1, fp32=2.0, int8=1.0) == first
    assert "published before" in report_of(published(tmp_path))["because"]
    assert built(2, fp32=2.0, int8=1.0)[0] == "int8", "another model is judged anew"


def test_labels_of_a_file_are_in_the_bundle_as_those_of_a_manifest(tmp_path: Path) -> None:
    raw = matrix()
    label, best = MATRIX["outputs"]
    listed = label["categories"]
    text = "\n".join(listed)
    beside = {
        "outputs": [{name: label[name] for name in label if name != "categories"}, best],
        "labels": {
            "uri": "pvc://data/labels.txt",
            "digest": layout.digest_of(text.encode()),
        },
    }
    digests = []
    for name, schema in (("manifest", MATRIX), ("file", MATRIX | beside)):
        root = tmp_path / name
        config = edge_config(root, raw, schema, matrix_golden(raw), tolerance=1e-5)
        (root / "volumes" / "data" / "labels.txt").write_text(text)
        digests.append(built_and_signed(config).bundles[0].digest)
    assert digests[0] == digests[1]


def test_a_budget_that_nothing_fits_publishes_nothing_and_shows_the_table(tmp_path: Path) -> None:
    raw = matrix()
    config = edge_config(
        tmp_path,
        raw,
        MATRIX,
        matrix_golden(raw),
        tolerance=0.2,
        edge={
            "targets": [
                {"name": "roomy", "budget": ROOMY},
                {"name": "tiny", "budget": ROOMY | {"memoryMiB": 1}},
            ]
        },
    )
    environment = {**os.environ, "FOURWAYS_CONFIG": json.dumps(config.to_json())}
    command = [sys.executable, "-m", "fourways_runtime", "edge-build"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == BudgetExceeded.exit_code
    report = RunReport.model_validate_json((tmp_path / "last-words").read_text())
    assert report.reason == "BudgetExceeded"
    lines = report.message.splitlines()
    assert lines[0] == "no variant fits; nothing was published"
    head = "variant|size MiB|memory MiB|p50 ms|p99 ms|load ms|agreement"
    assert "|".join(lines[1].split("  ")) == head
    assert [line.split()[0] for line in lines[2:4]] == ["fp32", "int8"]
    assert "target tiny (size 64 MiB, memory 1 MiB" in lines[-1]
    assert "fp32 fails memory; int8 fails memory" in lines[-1]
    assert not published(tmp_path, target="roomy").exists()


@pytest.mark.parametrize("name", ["churn", "file-type"])
def test_a_real_model_answers_on_a_device_as_its_golden_vectors_say(
    tmp_path: Path, name: str
) -> None:
    config = real_config(tmp_path, name)
    bundle = built_and_signed(config).bundles[0]
    assert bundle.agreement == 1.0
    if name == "churn":
        _, int8 = report_of(published(tmp_path))["variants"]
        assert "nothing to quantise" in int8["skipped"]
        assert "TreeEnsembleClassifier" in int8["skipped"]
    (tmp_path / "key.pub.pem").write_bytes(key_pair()[1])
    with gateway_of(Publisher(tmp_path)) as gateway:
        store = Store(tmp_path / "device")
        update(store, DeviceSettings(gateway.url, "churn", "door", str(tmp_path / "key.pub.pem")))
    ours = Device(store.folder)
    golden = config.contract.golden_vectors
    assert golden is not None
    vectors = read_vectors(tmp_path / "volumes" / "data" / "golden.jsonl", config.contract)
    original = RecordScorer(
        config.contract, load_onnx(tmp_path / "volumes" / "data" / "model.onnx", threads=1)
    )
    for vector in vectors:
        answer = ours.predict(vector.inputs)
        unchanged = original.ask(vector.inputs)
        for output, expected in vector.outputs.items():
            assert compare(expected, answer[output], golden) is None
            assert compare(unchanged[output], answer[output], golden) is None


def test_a_litert_model_is_published_as_it_is_and_answers_on_a_device(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(0, 1, (20, 3)).astype(np.float32)
    schema = {
        "entityKey": {"name": "id"},
        "inputs": [{"name": name, "type": "float32"} for name in "abc"],
        "outputs": [{"name": "y", "type": "float32"}],
    }
    wanted = (rows @ WEIGHTS.T + 1).reshape(-1).tolist()
    golden = [
        {"inputs": dict(zip("abc", row.tolist(), strict=True)), "outputs": {"y": y}}
        for row, y in zip(rows, wanted, strict=True)
    ]
    model = {"uri": "pvc://data/model.onnx", "version": "v1", "format": "litert"}
    config = edge_config(tmp_path, dense(), schema, golden, tolerance=1e-5, model=model)
    bundle = built_and_signed(config).bundles[0]
    assert (bundle.variant, bundle.agreement) == ("original", 1.0)
    manifest = document(published(tmp_path), bundle.digest)
    described = document(published(tmp_path), manifest["config"]["digest"])
    assert described["config"] == {"format": "tflite"}
    with gateway_of(Publisher(tmp_path)) as gateway:
        store, settings = device(tmp_path, gateway)
        assert update(store, settings).changed
    ours = Device(store.folder)
    assert [ours.predict(each["inputs"])["y"] for each in golden] == pytest.approx(wanted)
    file = store.slot(store.read().slot or "") / "files" / "model.tflite"
    assert file.read_bytes() == dense()
