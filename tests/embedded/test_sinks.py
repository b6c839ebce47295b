"""Predictions in files, Delta and a table of the user's: whole, once, and the last row counts."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from fourways_api import Contract, FetchPolicy, Paths
from fourways_api.modes import Sink as SinkSpec
from fourways_runtime.errors import ConfigError, FetchRefused, SinkUnavailable, StoreFull
from fourways_runtime.io.sinks import chunk_files, open_sink
from fourways_runtime.scoring.columns import Predictions
from tests.kit.sink_rig import Rig, predictions, write
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture(params=["Parquet", "Delta", "Replace", "Upsert"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> Rig:
    return Rig(request.param, tmp_path, database)


def test_a_run_is_seen_whole_when_it_is_published_and_not_before(rig: Rig) -> None:
    sink = rig.open()
    receipts = {at: write(sink, at, [f"{at}-{n}" for n in range(5)]) for at in range(3)}
    assert rig.seen() == {}
    sink.publish(receipts)
    assert rig.seen() == {f"{at}-{n}": 0.5 for at in range(3) for n in range(5)}
    later = rig.open("r2")
    new = {0: write(later, 0, ["0-0", "new"], score=0.25)}
    assert len(rig.seen()) == 15
    later.publish(new)
    kept = len(rig.seen()) - 2
    assert kept == (14 if rig.kind == "Upsert" else 0)
    assert rig.seen()["0-0"] == 0.25


def test_only_recorded_tries_are_published_and_an_empty_chunk_is_one(rig: Rig) -> None:
    sink, other = rig.open(), rig.open()
    lost = other.chunk(0, 1)
    lost.write(predictions(["a", "never"], score=0.1))
    kept = write(sink, 0, ["a", "b"])
    lost.finish()
    given_up = other.chunk(1, 1)
    given_up.write(predictions(["x"]))
    given_up.abandon()
    sink.publish({0: kept, 1: sink.chunk(1, 2).finish()})
    assert rig.seen() == {"a": 0.5, "b": 0.5}


def test_publishing_again_changes_nothing_whoever_does_it(rig: Rig) -> None:
    sink = rig.open()
    receipts = {0: write(sink, 0, ["a", "b"])}
    sink.publish(receipts)
    before = rig.seen()
    sink.publish(receipts)
    again = rig.open()
    again.publish(receipts)
    assert rig.seen() == before == {"a": 0.5, "b": 0.5}
    if rig.kind == "Delta":
        assert len(list((rig.folder / "_delta_log").glob("*.json"))) == 1


def test_of_rows_with_one_key_the_last_counts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_files, "GROUP_ROWS", 4)
    sink = rig.open()
    receipts = {
        0: write(sink, 0, [f"k{n}" for n in range(10)], score=0.1),
        1: write(sink, 1, ["only", "in", "k3", "k3"], score=0.2),
        2: write(sink, 2, ["k9", "only", "in"], score=0.3),
    }
    lost = {("k3", 3), ("k9", 9), ("only", 0), ("in", 1), ("k3", 2)}
    repeated = sink.repeated(receipts)
    assert {(reject.key, reject.row) for reject in repeated} == lost
    assert {str(reject) for reject in repeated} == {"id: a later row has the same key"}
    assert len(repeated) == len(lost)
    assert rig.seen() == {}
    sink.publish(receipts)
    expected = {f"k{n}": 0.1 for n in range(10)} | {"k3": 0.2, "k9": 0.3, "only": 0.3, "in": 0.3}
    assert rig.seen() == pytest.approx(expected)


def test_what_a_run_wrote_is_dropped(rig: Rig) -> None:
    first = rig.open("r1")
    first.publish({0: write(first, 0, ["a"])})
    sink = rig.open("r2")
    write(sink, 0, ["b"])
    sink.discard()
    assert rig.seen() == {"a": 0.5}
    if rig.kind in ("Parquet", "Delta"):
        left = [p for p in rig.folder.rglob("*") if p.is_file() and "r2" in str(p)]
        assert left == []


def test_a_run_begun_anew_is_not_mixed_with_what_it_wrote_before(rig: Rig) -> None:
    given_up = rig.open()
    write(given_up, 0, ["a", "gone"], score=0.1)
    write(given_up, 1, ["b", "also"], score=0.1)
    sink = rig.open()
    sink.publish({0: write(sink, 0, ["a", "c"])})
    assert rig.seen() == {"a": 0.5, "c": 0.5}
    if rig.kind == "Delta":
        assert [p.name for p in rig.folder.glob("*.parquet")] == ["part-00000-r1-0.parquet"]


def test_a_full_disk_is_named(rig: Rig) -> None:
    if rig.kind not in ("Parquet", "Delta"):
        pytest.skip("files only")
    sink = rig.open()
    chunk = sink.chunk(0, 0)
    chunk.write(predictions([f"{n * 7919 % 10_007}" for n in range(20_000)]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StoreFull, match="file too large"):
            chunk.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    chunk.abandon()
    assert not list(rig.folder.rglob("*.parquet"))


def test_hashes_of_many_keys_are_compared_a_few_at_a_time(rig: Rig) -> None:
    if rig.kind != "Parquet":
        pytest.skip("files only")
    sink: Any = rig.open()
    rng = np.random.default_rng(0)
    hashes = rng.integers(-(2**63), 2**63 - 1, 20_000)
    twice = hashes[:7]
    for name, some in (("a", hashes[:15_000]), ("b", np.concatenate([hashes[15_000:], twice]))):
        sink._place.put(
            name, chunk_files.key_file(some, chunk_files.segments(np.arange(len(some)), 0))
        )
    for at_once in (500, 10_000, 10**9):
        found = chunk_files.repeated(sink._place, ["a", "b"], 20_007, at_once)
        assert found.tolist() == sorted(twice.tolist())


# ---------------------------------------------------------------- files


@pytest.fixture
def files(tmp_path: Path, database: str) -> Rig:
    return Rig("Parquet", tmp_path, database)


def test_a_folder_keeps_a_few_runs_and_a_pointer_to_the_newest(files: Rig) -> None:
    for run in ("r1", "r2", "r3"):
        sink = files.open(run, keep_runs=2)
        sink.publish({0: write(sink, 0, [run])})
    folders = sorted(p.name for p in files.folder.iterdir() if not p.name.startswith("_"))
    assert folders == ["run=r2", "run=r3"]
    told = orjson.loads((files.folder / "_latest").read_bytes())
    assert (told["run"], told["path"], told["files"]) == ("r3", "run=r3", ["part-00000.parquet"])
    assert list((files.folder / "_writing").iterdir()) == []


def test_a_list_of_runs_by_somebody_else_deletes_runs_only(files: Rig) -> None:
    sink = files.open("r1", keep_runs=1)
    sink.publish({0: write(sink, 0, ["r1"])})
    others = files.folder.parent / "others"
    for place in (others, files.folder / "theirs"):
        place.mkdir()
        (place / "file").write_bytes(b"x")
    pointer = files.folder / "_latest"
    forged = ["", ".", "..", "../others", "theirs", "run=../../others", 7, None, "run=r1"]
    pointer.write_bytes(orjson.dumps({**orjson.loads(pointer.read_bytes()), "runs": forged}))
    sink = files.open("r2", keep_runs=1)
    sink.publish({0: write(sink, 0, ["r2"])})
    assert (others / "file").exists()
    assert (files.folder / "theirs" / "file").exists()
    runs = [p.name for p in files.folder.iterdir() if p.name.startswith("run=")]
    assert runs == ["run=r2"]
    pointer.write_bytes(orjson.dumps({"runs": "no list"}))
    sink = files.open("r3", keep_runs=1)
    sink.publish({0: write(sink, 0, ["r3"])})
    pointer.write_bytes(b"{")
    with pytest.raises(ConfigError, match="_latest is not JSON"):
        files.open("r4", keep_runs=1)


def test_a_publish_that_broke_off_anywhere_is_taken_up(
    files: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = files.open("old")
    old.publish({0: write(old, 0, ["old"])})
    sink: Any = files.open()
    receipts = {at: write(sink, at, [f"{at}", "same"]) for at in range(3)}
    kept = files.folder.parent / "kept"
    shutil.copytree(files.folder, kept)
    steps = 0
    while True:
        shutil.rmtree(files.folder)
        shutil.copytree(kept, files.folder)
        if not _broken_at(files, receipts, steps, monkeypatch):
            break
        assert files.seen() in ({"old": 0.5}, {"0": 0.5, "1": 0.5, "2": 0.5, "same": 0.5})
        files.open().publish(receipts)
        assert files.seen() == {"0": 0.5, "1": 0.5, "2": 0.5, "same": 0.5}
        steps += 1
    assert steps > 8


def _broken_at(
    files: Rig, receipts: Mapping[int, str], step: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Publish until the filesystem's ``step``-th change, and tell whether that came."""
    sink = files.open()
    done = 0

    def counted(name: str) -> Any:
        import os

        real = getattr(os, name)

        def call(*arguments: Any, **how: Any) -> Any:
            nonlocal done
            if done == step:
                raise InterruptedError("the process ended here")
            done += 1
            return real(*arguments, **how)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "unlink", "rmdir"):
            patch.setattr(f"fourways_runtime.folder_writer.os.{name}", counted(name))
        try:
            sink.publish(receipts)
        except (SinkUnavailable, InterruptedError):
            return True
    return False


def test_no_link_leads_out_of_a_claim(files: Rig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    files.folder.mkdir()
    (files.folder / "_writing").symlink_to(outside)
    with pytest.raises((FetchRefused, SinkUnavailable)):
        files.open()
    assert list(outside.iterdir()) == []


def test_unsigned_numbers_and_others_are_written_as_they_are(tmp_path: Path) -> None:
    kinds = [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float32",
        "float64",
    ]
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [{"name": "age", "type": "int32"}],
            "outputs": [{"name": kind, "type": kind} for kind in kinds],
        }
    )
    values = {kind: np.array([1, 0], kind) for kind in kinds}
    values["uint64"] = np.array([2**64 - 1, 0], np.uint64)
    for form in ("Parquet", "Delta"):
        if form == "Delta":
            pytest.importorskip("deltalake")
        spec = SinkSpec.model_validate(
            {"files": {"uri": f"file://{tmp_path}/{form}", "format": form}}
        )
        sink = open_sink(spec, contract, "r", policy=FetchPolicy(), paths=Paths())
        sink.begin()
        chunk = sink.chunk(0, 0)
        chunk.write(Predictions(np.array([5, 6]), np.arange(2), values))
        sink.publish({0: chunk.finish()})
        where = tmp_path / form
        if form == "Parquet":
            rows = pq.read_table(where / "run=r").to_pylist()
        else:
            from deltalake import DeltaTable

            rows = DeltaTable(str(where)).to_pyarrow_table().to_pylist()
        assert rows[0]["id"] == 5
        assert int(rows[0]["uint64"]) == 2**64 - 1
        assert [int(rows[0][kind]) for kind in kinds if kind != "uint64"] == [1] * 10


# ---------------------------------------------------------------- Delta


def test_a_commit_of_somebody_else_meanwhile_is_built_upon(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("deltalake")
    rig = Rig("Delta", tmp_path, database)
    first = rig.open("r1")
    first.publish({0: write(first, 0, ["a"])})
    slow: Any = rig.open("r2")
    receipts = {0: write(slow, 0, ["b"])}
    real = type(slow._place).put
    raced = False

    def put(place: Any, name: str, data: bytes, *, new: bool = False) -> bool:
        nonlocal raced
        if new and not raced:
            raced = True
            quick = rig.open("r3")
            quick.publish({0: write(quick, 0, ["c"])})
        return bool(real(place, name, data, new=new))

    monkeypatch.setattr(type(slow._place), "put", put)
    slow.publish(receipts)
    assert raced
    assert rig.seen() == {"b": 0.5}
    from deltalake import DeltaTable

    assert DeltaTable(str(rig.folder)).version() == 2


def test_a_table_others_can_read_after_many_runs(tmp_path: Path, database: str) -> None:
    pytest.importorskip("deltalake")
    rig = Rig("Delta", tmp_path, database)
    for run in range(12):
        sink = rig.open(f"r{run}")
        sink.publish({0: write(sink, 0, ["a", f"{run}"])})
    assert set(rig.seen()) == {"a", "11"}
    assert list((rig.folder / "_delta_log").glob("*10.checkpoint.parquet"))


def test_a_delta_table_with_other_columns_is_refused_before_the_first_row(
    tmp_path: Path, database: str
) -> None:
    deltalake = pytest.importorskip("deltalake")
    import pyarrow as pa

    rig = Rig("Delta", tmp_path, database)
    deltalake.write_deltalake(str(rig.folder), pa.table({"id": ["a"], "score": ["high"]}))
    with pytest.raises(ConfigError, match="column label of the table is missing"):
        rig.open()
