"""Mix-ups of files and installations are refused with what they are and what to do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from fourways_api import RuntimeConfig
from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError, ModelNotLoadable
from fourways_runtime.extras import missing_library
from fourways_runtime.process import failure
from fourways_runtime.scoring.columns import Reject
from fourways_runtime.scoring.model.sniff import fault_of, refuse_other_format
from fourways_runtime.workloads.batch.limits import cure_of
from tests.kit.faults import FILES, archive


@pytest.mark.parametrize(
    ("first", "wanted", "words"),
    FILES,
)
def test_another_kind_of_file_is_named_with_the_fix(
    first: bytes, wanted: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(first)
    with pytest.raises(ModelNotLoadable) as refused:
        refuse_other_format(tmp_path / "model", wanted)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        (b"\x08\x09\x12\x07pytorch", "onnx"),
        (b"", "onnx"),
        (archive(), "skops"),
        (b"tree\nversion=v4\n", "lightgbm"),
        (b'{"learner":{', "xgboost"),
        (b"{L\0\0\0\0\0\0\0\x07learner{", "xgboost"),
        (b"\x80\x04\x95", "python"),
    ],
)
def test_what_may_be_the_format_is_left_to_its_loader(first: bytes, wanted: Any) -> None:
    assert fault_of(first, wanted) is None


# ---------------------------------------------------------------- rejects


def reject(reason: str) -> Reject:
    return Reject(0, "k", "age", reason)


def test_missing_values_have_nullable_for_a_cure() -> None:
    assert "nullable: true" in cure_of([reject("-3 is below 0"), reject("missing")])
    assert "maxRejects" in cure_of([reject("missing")])
    assert "nullable" not in cure_of([reject("-3 is below 0")])


# ---------------------------------------------------------------- missing extras


@pytest.mark.parametrize(
    ("name", "extra"),
    [("confluent_kafka", "kafka"), ("nats.js.errors", "nats"), ("pyarrow.dataset", "runtime")],
)
def test_a_missing_library_names_its_extra(name: str, extra: str) -> None:
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    report, code = failure(error, None, logging.getLogger("test"))
    assert (report.reason, code) == ("ConfigError", ConfigError.exit_code)
    assert install_command(extra) in report.message


def test_another_missing_module_stays_an_internal_error() -> None:
    assert missing_library(ModuleNotFoundError("m", name="fourways_runtime.nothing")) is None
    assert missing_library(ValueError()) is None
    report, code = failure(ModuleNotFoundError("m", name="user_code"), None, logging.getLogger("t"))
    assert (report.reason, code) == ("InternalError", 1)


def test_the_worker_s_configuration_has_its_path_where_it_is_read() -> None:
    schema = RuntimeConfig.model_json_schema(by_alias=True)
    paths = schema["$defs"]["Paths"]["properties"]
    assert "paths" in schema["properties"]
    assert "terminationLog" in paths
