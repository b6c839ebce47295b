"""A batch run compares its records with the training, over all chunks and attempts."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from fourways_api import Contract, DriftStatus
from fourways_runtime.errors import ProfileInvalid, StoreUnavailable
from fourways_runtime.io.store import open_run_store
from fourways_runtime.scoring.profile import make_profile
from fourways_runtime.workloads import batch
from fourways_runtime.workloads.batch import run_context
from tests.kit.batch_world import World

ROWS = 3_000


def records(shift: int = 0, rows: int = ROWS) -> dict[str, Any]:
    random = np.random.default_rng(shift)
    return {
        # In order: every chunk has ages of its own.
        "age": np.sort(random.integers(20, 60, rows)) + shift,
        "spend": random.normal(10, 2, rows).astype(np.float32),
    }


def with_profile(world: World) -> dict[str, Any]:
    """Write the profile; return the changes of a configuration that compares with it."""
    known = records()
    outputs = {"y": 2.0 * (known["age"] + known["spend"])}
    made = make_profile(Contract.model_validate(world.config().contract.to_json()), known, outputs)
    world.file("profile.json").write_text(made.model_dump_json(exclude_none=True))
    return {"monitoring": {"profile": {"uri": "pvc://data/profile.json"}}}


def table(world: World, shift: int = 0, rows: int = ROWS, **columns: Any) -> None:
    made = {**records(shift, rows), **columns}
    world.table(row_group_size=250, id=[f"c{at}" for at in range(rows)], **made)


def ran(world: World, name: str, **changes: Any) -> DriftStatus | None:
    run = batch.BatchRun(world.config(**changes), name)
    run.execute()
    return batch.succeeded(run.execute(), (), run.progress.drift).drift


def drifted(found: DriftStatus | None) -> list[str]:
    assert found is not None
    return sorted(each.name for each in found.fields if each.drifted)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_context, "chunk_rows", lambda config: 250)


@pytest.mark.usefixtures("small_chunks")
def test_all_chunks_together_are_compared(world: World) -> None:
    settings = with_profile(world)
    table(world)
    quiet = ran(world, "r1", **settings)
    assert quiet is not None
    assert (quiet.drifted, quiet.records, quiet.rejects) == (0, ROWS, 0.0)
    assert {each.name for each in quiet.fields} == {"age", "spend", "y"}
    table(world, shift=25)
    assert drifted(ran(world, "r2", **settings)) == ["age", "y"]


def test_rejects_are_told_as_a_share(world: World) -> None:
    settings = with_profile(world)
    ages = records()["age"]
    ages[::10] = 150
    table(world, age=ages)
    found = ran(world, "r1", batch__maxRejects="20%", **settings)
    assert found is not None
    assert found.rejects == 0.1
    assert found.records == ROWS * 0.9


@pytest.mark.usefixtures("small_chunks")
def test_a_run_that_is_resumed_has_the_counts_of_all_its_chunks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_profile(world)
    table(world, shift=25)
    monkeypatch.setattr(run_context, "PATIENCE_SECONDS", 0.0)
    real, written = batch.claims.Recorder.write, []

    def dies(self: Any, outcome: Any) -> Any:
        written.append(outcome.piece.claim.number)
        if written[-1] == 5:
            raise StoreUnavailable("gone")
        return real(self, outcome)

    with monkeypatch.context() as patched:
        patched.setattr(batch.claims.Recorder, "write", dies)
        with pytest.raises(StoreUnavailable):
            batch.BatchRun(world.config(**settings), "r1").execute()
    found = ran(world, "r1", **settings)
    assert found is not None
    assert found.records == ROWS
    assert drifted(found) == ["age", "y"]


def test_the_store_keeps_the_result_with_the_run(world: World) -> None:
    settings = with_profile(world)
    table(world, shift=25)
    told = ran(world, "r1", **settings)
    ran(world, "r2")
    with closing(open_run_store(world.uri, read_only=True)) as store:
        later, earlier = store.runs("n", "churn")
        assert told is not None
        assert earlier.drift == told.to_json()
        assert later.drift is None
        assert store.database.rows("SELECT count(*) FROM @profiles") == [(1,)]


def test_large_batches_are_sampled_evenly(world: World) -> None:
    settings = with_profile(world)
    random = np.random.default_rng(0)
    rows = 60_000
    ages = np.sort(random.integers(20, 60, rows))
    spend = random.normal(10, 2, rows).astype(np.float32)
    world.table(id=[f"c{at}" for at in range(rows)], age=ages, spend=spend)
    found = ran(world, "r1", **settings)
    assert found is not None
    assert found.drifted == 0
    assert 1_000 < found.records < 30_000


def test_a_profile_of_another_contract_ends_the_run(world: World) -> None:
    settings = with_profile(world)
    text = world.file("profile.json").read_text().replace('"spend"', '"spent"')
    world.file("profile.json").write_text(text)
    with pytest.raises(ProfileInvalid, match=r"monitoring\.profile: inputs: .* no single .* spent"):
        ran(world, "r1", **settings)
