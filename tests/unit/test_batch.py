"""A batch run from the table to the lookup, and each way it may end short of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fourways_api import RunReport
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_runtime.errors import (
    ConfigError,
    ContractMismatch,
    DigestMismatch,
    GoldenMismatch,
    SourceError,
    TooManyRejects,
    WorkloadError,
)
from fourways_runtime.io.store import open_run_store
from fourways_runtime.termination_message import write_report
from fourways_runtime.workloads import batch
from fourways_runtime.workloads.batch.limits import RejectLimit
from tests.kit.batch_world import World


async def test_csv_comes_to_the_same(world: World) -> None:
    world.file("t.csv").write_text("id,spend,age\nc0,0.5,0\nc1,0.5,30\nc2,,60\nc3,0.5,x\n")
    source = {"uri": "pvc://data/t.csv", "format": "CSV"}
    done = world.run(batch__source=source, batch__maxRejects="2")
    assert (done.rows, done.rejects) == (2, 2)
    assert await world.rows("c0", "c1", "c2") == {"c0": {"y": 1.0}, "c1": {"y": 61.0}}


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (
            "0",
            "1 of 4 rows were rejected, maxRejects is 0; the first: row 1: age is below 0; ",
        ),
        ("24.9%", "1 of 4 rows were rejected, maxRejects is 24.9%"),
    ],
)
async def test_too_many_rejects_leave_the_run_before_in_place(
    world: World, limit: str, told: str
) -> None:
    world.run()
    world.table(id=[f"c{n}" for n in range(4)], age=[9, -3, 9, 9], spend=[0.5] * 4)
    with pytest.raises(TooManyRejects) as error:
        world.run("r2", batch__maxRejects=limit)
    assert str(error.value).startswith(told)
    assert await world.rows("c0") == {"c0": {"y": 1.0}}
    assert world.run("r3", batch__maxRejects="25%").rejects == 1


def test_keys_that_occur_again_count_as_rejects(world: World) -> None:
    world.table(id=["a", "a"], age=[1, 2], spend=[0.0, 0.0])
    with pytest.raises(TooManyRejects, match="a key occurs more than once"):
        world.run()


def test_a_count_stops_the_run_at_once_and_a_share_as_soon_as_it_is_sure() -> None:
    assert RejectLimit("2").surely_exceeded(3)
    assert not RejectLimit("2").surely_exceeded(2)
    assert RejectLimit("1%", total_rows=1000).surely_exceeded(11)
    assert not RejectLimit("1%", total_rows=1000).surely_exceeded(10)
    assert not RejectLimit("1%").surely_exceeded(10**9)
    assert RejectLimit("1%").exceeded(11, 1000)
    assert not RejectLimit("0.1%").exceeded(3, 3000)
    assert not RejectLimit("100%").exceeded(3, 3)


async def test_a_table_without_rows_never_replaces_good_predictions(world: World) -> None:
    world.run()
    world.table(
        id=pa.array([], pa.string()), age=pa.array([], pa.int32()), spend=pa.array([], pa.float32())
    )
    with pytest.raises(SourceError, match="the source has no rows"):
        world.run("r2")
    world.table(id=["a"], age=[-1], spend=[0.0])
    with pytest.raises(TooManyRejects, match="every row was rejected"):
        world.run("r2", batch__maxRejects="100%")
    assert await world.rows("c0") == {"c0": {"y": 1.0}}


def test_a_run_published_already_reports_itself_and_scores_nothing(world: World) -> None:
    done = world.run()
    world.file("table.parquet").unlink()
    world.file("model.onnx").unlink()
    assert world.run() == done
    with pytest.raises(SourceError):
        world.run("r2")


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"digest": "sha256:" + "0" * 64}, DigestMismatch, "the file is sha256:"),
        (
            {"contract__outputs": [{"name": "z", "type": "float32"}]},
            ContractMismatch,
            "output z is read from z, the model answers y float32[?, 1]",
        ),
        (
            {"contract__inputs": [{"name": "age", "type": "int32"}]},
            ContractMismatch,
            "inputs age make 1 columns, the model's input is x float32[?, 2]",
        ),
        ({"batch__source": {"uri": "pvc://data/gone.parquet"}}, SourceError, "no such file"),
        ({"paths__storeUriFile": "/nonexistent"}, ConfigError, "cannot be read from /nonexistent"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_published(
    world: World, changes: dict[str, Any], kind: type[WorkloadError], told: str
) -> None:
    with pytest.raises(kind) as error:
        world.run(**changes)
    assert told in str(error.value)
    writer = open_run_store(world.uri)
    assert writer.published("n", "churn") is None
    writer.close()


async def test_golden_vectors_are_checked_before_anything_is_scored(world: World) -> None:
    golden = world.file("golden.jsonl")
    golden.write_text('{"inputs": {"age": 1, "spend": 1}, "outputs": {"y": 4}}\n')
    setting = {"uri": "pvc://data/golden.jsonl"}
    world.run(contract__goldenVectors=setting)
    golden.write_text('{"inputs": {"age": 1, "spend": 1}, "outputs": {"y": 5}}\n')
    with pytest.raises(GoldenMismatch, match=r"vector 0: y: expected 5, got 4, tolerance 0\.00051"):
        world.run("r2", contract__goldenVectors=setting)
    assert await world.rows("c0") == {"c0": {"y": 1.0}}


# ---------------------------------------------------------------- the process


def test_a_configuration_that_makes_no_sense_is_said_so(world: World) -> None:
    for text, told in (("{", "Invalid JSON"), ('{"name": "x"}', "namespace: Field required")):
        with pytest.raises(ConfigError, match=told):
            batch.read_config({CONFIG_VARIABLE: text})
    with pytest.raises(ConfigError, match="FOURWAYS_CONFIG is not set"):
        batch.read_config({})
    with pytest.raises(ConfigError, match="FOURWAYS_RUN is not set"):
        batch.read_run({})


def test_last_words_fit_into_what_the_kubelet_takes(tmp_path: Path) -> None:
    file = tmp_path / "last-words"
    write_report(RunReport(outcome="Failed", message="ü\n" * 5000), str(file))
    raw = file.read_bytes()
    assert len(raw) <= 4096
    report = RunReport.model_validate_json(raw)
    assert report.message.startswith("ü\nü")
    assert report.message.endswith("…")
    write_report(report, str(tmp_path / "no" / "such" / "folder"))
