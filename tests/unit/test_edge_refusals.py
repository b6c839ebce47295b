"""A build that cannot begin says what to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fourways_runtime.config import read_edge_config
from fourways_runtime.errors import ConfigError, GoldenMismatch
from fourways_runtime.workloads.edge import variants
from fourways_runtime.workloads.edge.build import build
from fourways_runtime.workloads.edge.sign import sign_bundles
from tests.kit.edge_plane import edge_config, linear_golden, public_half
from tools.kit.models import LINEAR


def test_the_configuration_comes_from_the_environment(tmp_path: Path) -> None:
    config = edge_config(tmp_path)
    told = {"FOURWAYS_CONFIG": json.dumps(config.to_json())}
    assert read_edge_config(told) == config.with_own_secrets()


def test_only_onnx_and_litert_models_run_on_devices(tmp_path: Path) -> None:
    model = {"uri": "pvc://data/model.onnx", "version": "v1", "format": "skops"}
    with pytest.raises(ConfigError, match=r"model\.format: devices run ONNX.*skops.*export"):
        build(edge_config(tmp_path, model=model))


def test_golden_vectors_are_required(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contract\.goldenVectors is not set"):
        build(edge_config(tmp_path, contract=LINEAR))


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN EC PRIVATE KEY-----\nsecret\n"])
def test_a_key_that_is_none_is_told_with_the_command_that_makes_one(
    tmp_path: Path, content: bytes | None
) -> None:
    config = edge_config(tmp_path)
    key = tmp_path / "secrets" / "device-key" / "signing-key.pem"
    key.unlink()
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(ConfigError, match=r"device-key.*signing-key\.pem.*openssl") as caught:
        sign_bundles(config)
    assert "secret" not in str(caught.value)


def test_a_public_key_does_not_sign(tmp_path: Path) -> None:
    config = edge_config(tmp_path)
    key = tmp_path / "secrets" / "device-key" / "signing-key.pem"
    key.write_bytes(public_half(key.read_bytes()))
    with pytest.raises(ConfigError, match="not a private key"):
        sign_bundles(config)


def test_a_model_that_misses_its_golden_vectors_is_not_even_measured(tmp_path: Path) -> None:
    with pytest.raises(GoldenMismatch):
        build(edge_config(tmp_path, golden=linear_golden(scale=2)))


def test_why_a_tree_is_not_quantised_is_said(tmp_path: Path) -> None:
    churn = Path(__file__).parents[2] / "examples" / "artifacts" / "churn" / "model.onnx"
    with pytest.raises(variants.Skipped, match=r"nothing to quantise.*TreeEnsembleClassifier"):
        variants.int8(churn, tmp_path)
