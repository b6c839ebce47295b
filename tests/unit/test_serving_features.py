"""Requests that leave inputs out: what the feature database fills in, and what is refused."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from fourways_runtime.errors import ConfigError, FeaturesMismatch
from tests.kit.secret_files import secret_folder
from tests.kit.serving_plane import MIXED, Serving, configure, mixed, serving, tensor
from tools.kit.models import LINEAR, linear

NULLABLE: dict[str, Any] = {
    **LINEAR,
    "inputs": [LINEAR["inputs"][0], {**LINEAR["inputs"][1], "nullable": True}, LINEAR["inputs"][2]],
}
RATE = tensor("rate", "FP32", [1, 1])
KEYS = tensor("id", "BYTES", ["a", "b"])


class World:
    """A feature database, and servers that use it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "crm.db"
        secret_folder(root / "secrets" / "crm", uri=f"sqlite://{self.file}")
        self.run("CREATE TABLE people (id TEXT PRIMARY KEY, age INTEGER, spend REAL)")
        self.run("INSERT INTO people VALUES ('a', 30, 2), ('b', 40, 4), ('none', NULL, NULL)")
        self.run("INSERT INTO people VALUES ('old', 130, 1), ('odd', 30.5, 1), ('text', 'x', 1)")
        self.run("INSERT INTO people VALUES ('inf', 9e999, 1)")

    def run(self, *statements: str) -> None:
        with sqlite3.connect(self.file) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def serve(
        self, contract: dict[str, Any] = LINEAR, model: bytes | None = None, **features: Any
    ) -> AbstractAsyncContextManager[Serving]:
        features = {
            "database": {"secretName": "crm"},
            "table": "people",
            "timeout": "5s",
            "inputs": ["age", "spend"],
        } | features
        config = configure(self.root, model or linear(), contract, features=features)
        paths = config.paths.model_copy(update={"secrets_root": str(self.root / "secrets")})
        return serving(config.model_copy(update={"paths": paths}))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def scores(answer: Any) -> list[float]:
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["outputs"][0]["data"]
    return found


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_inputs_left_out_are_looked_up_and_given_ones_win(world: World) -> None:
    async with world.serve() as plane:
        answer = await plane.infer(KEYS, RATE)
        assert scores(answer) == [11.125, 12.125]
        assert answer.json()["parameters"] == {"features": "looked up"}
        assert scores(await plane.infer(RATE, parameters={"entity_keys": ["b", "a"]})) == [
            12.125,
            11.125,
        ]
        answer = await plane.infer(KEYS, RATE, tensor("age", "INT32", [0, 10]))
        assert scores(answer) == [-3.875, -2.875]
        assert await plane.metric("fourways_feature_lookups_total") == 3
        everything = [tensor("age", "INT32", [30, 40]), tensor("spend", "FP32", [2, 4]), RATE]
        answer = await plane.infer(*everything, KEYS)
        assert scores(answer) == [11.125, 12.125]
        assert "parameters" not in answer.json()
        assert await plane.metric("fourways_feature_lookups_total") == 3


async def test_what_is_not_covered_or_has_no_key_is_asked_for(world: World) -> None:
    async with world.serve() as plane:
        assert refused(await plane.infer(KEYS)) == (
            400,
            "rate: missing: the contract requires this input",
        )
        assert refused(await plane.infer(RATE)) == (
            400,
            "age: is missing: give it, or id to have it looked up",
        )
        bad = tensor("id", "BYTES", ["a", ""])
        assert refused(await plane.infer(bad, RATE))[0] == 400


async def test_looked_up_values_keep_the_contract(world: World) -> None:
    async with world.serve() as plane:
        # A bad value is the database's fault, a key it does not have the client's.
        for key, status, told in (
            ("old", 502, "age: 130 is above 120 (row 1)"),
            (
                "odd",
                502,
                "age: 30.5 is not a whole number (the feature database, key 'odd') (row 1)",
            ),
            (
                "text",
                502,
                "age: 'x' is not a whole number (the feature database, key 'text') (row 1)",
            ),
            (
                "inf",
                502,
                "age: inf is not finite (the feature database, key 'inf') (row 1)",
            ),
            ("none", 400, "age: missing: not in the feature database, key 'none' (row 1)"),
            ("nobody", 400, "age: missing: not in the feature database, key 'nobody' (row 1)"),
        ):
            answer = await plane.infer(tensor("id", "BYTES", ["a", key]), RATE)
            assert refused(answer) == (status, told)
            assert answer.json()["rows"][0]["key"] == key
            fault = "features" if status == 502 else None
            assert answer.headers.get("x-fourways-fault") == fault
        assert await plane.metric("fourways_feature_misses_total") == 1
        assert await plane.metric("fourways_feature_faults_total") == 4


async def test_a_partial_request_loses_only_the_rows_whose_lookup_fails(world: World) -> None:
    async with world.serve() as plane:
        keys = tensor("id", "BYTES", ["a", "nobody", "odd", "old", "b", "a"])
        rate = tensor("rate", "FP32", [1, 1, 1, 1, 1, "x"])
        answer = await plane.infer(keys, rate, parameters={"partial": True})
        assert scores(answer) == [11.125, 12.125]
        told = answer.json()["parameters"]
        assert (told["rows"], told["bad_rows"], told["features"]) == ([0, 4], 4, "looked up")
        assert [(one["row"], one["field"], one["reason"]) for one in told["errors"]] == [
            (1, "age", "missing: not in the feature database, key 'nobody'"),
            (2, "age", "30.5 is not a whole number (the feature database, key 'odd')"),
            (3, "age", "130 is above 120"),
            (5, "rate", "'x' is not a number"),
        ]
        for key, status in (("nobody", 400), ("odd", 502), ("old", 502)):
            only = tensor("id", "BYTES", [key])
            one = tensor("rate", "FP32", [1])
            answer = await plane.infer(only, one, parameters={"partial": True})
            assert answer.status_code == status, "none is good"


async def test_metadata_name_the_key_and_what_the_database_fills_in(world: World) -> None:
    async with world.serve() as plane:
        inputs = (await plane.client.get("/v2/models/churn")).json()["inputs"]
        assert inputs[0] == {
            "name": "id",
            "datatype": "BYTES",
            "shape": [-1],
            "parameters": {"entity_key": True},
        }
        looked_up = [
            field["name"] for field in inputs if "looked_up" in field.get("parameters", {})
        ]
        assert looked_up == ["age", "spend"]


async def test_defaults_and_missing_values(world: World) -> None:
    defaults = [{"name": "age", "number": 20}]
    async with world.serve(NULLABLE, defaults=defaults) as plane:
        given = tensor("id", "BYTES", ["nobody"]), tensor("rate", "FP32", [1])
        # The model is told NaN, and its NaN is no answer: so spend arrived as missing.
        assert refused(await plane.infer(*given)) == (500, "score: the model answered NaN (row 0)")
        answer = await plane.infer(*given, tensor("spend", "FP32", [2]))
        assert scores(answer) == [6.125]
        assert answer.json()["parameters"] == {"features": "looked up"}


async def test_a_database_that_went_away(world: World) -> None:
    defaults = [{"name": "age", "number": 20}, {"name": "spend", "number": 1}]
    for more, status in (({}, 503), ({"on_timeout": "UseDefaults", "defaults": defaults}, 200)):
        async with world.serve(**more) as plane:  # type: ignore[arg-type]
            world.run("ALTER TABLE people RENAME TO elsewhere")
            answer = await plane.infer(KEYS, RATE)
            assert answer.status_code == status, answer.text
            if status == 503:
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["error"].startswith("the feature database did not respond")
            else:
                assert scores(answer) == [8.125, 8.125]
                assert answer.json()["parameters"] == {"features": "defaults"}
            whole = tensor("input", "FP32", [30, 2, 1], [1, 3])
            assert scores(await plane.infer(whole)) == [11.125]
        world.run("ALTER TABLE elsewhere RENAME TO people")


async def test_shapes_texts_truths_and_whole_keys(world: World) -> None:
    world.run("CREATE TABLE things (id INTEGER, word TEXT, flag INTEGER, big TEXT, grid TEXT)")
    world.run("INSERT INTO things VALUES (7, 'ü', 1, NULL, '[[1, 2], [3, 4]]')")
    world.run("INSERT INTO things VALUES (8, 'zz', 2, 5, '[[1, 2], [3]]')")
    defaults = [{"name": "big", "number": 3}, {"name": "flag", "number": 0}]
    more = {"table": "things", "inputs": [], "defaults": defaults}
    async with world.serve(MIXED, mixed(), **more) as plane:
        answer = await plane.infer(tensor("id", "INT64", [7]))
        assert {one["name"]: one["data"] for one in answer.json()["outputs"]} == {
            "word_out": ["ü"],
            "flag_out": [True],
            "big_out": [3],
            "grid_out": [1, 2, 3, 4],
        }
        answer = await plane.infer(tensor("id", "INT64", [8]), tensor("word", "BYTES", ["a"]))
        assert refused(answer)[0] == 502
        assert answer.json()["field"] == "flag"
        told = tensor("flag", "BOOL", [True]), tensor("big", "UINT64", [1])
        answer = await plane.infer(tensor("id", "INT64", [8]), *told)
        assert answer.json()["field"] == "grid"


async def test_settings_that_make_no_sense(world: World) -> None:
    for more, told in (
        ({"inputs": ["height"]}, "height is not an input of the contract"),
        ({"defaults": [{"name": "age", "text": "x"}]}, "the default of age must be a number"),
    ):
        with pytest.raises(ConfigError, match=told):
            async with world.serve(**more):  # type: ignore[arg-type]
                pass
    with pytest.raises(FeaturesMismatch, match="table people has no column rate"):
        async with world.serve(inputs=[]):
            pass


async def test_a_request_without_rows_looks_nothing_up(world: World) -> None:
    async with world.serve() as plane:
        world.run("DROP TABLE people")
        answer = await plane.infer(tensor("rate", "FP32", [], [0]), tensor("id", "BYTES", [], [0]))
        assert answer.status_code == 200
        assert answer.json()["outputs"][0]["shape"] == [0]


# ---------------------------------------------------------------- since when


def timed(world: World) -> None:
    world.run(
        "CREATE TABLE timed (id TEXT PRIMARY KEY, age INTEGER, spend REAL, since TEXT)",
        "INSERT INTO timed VALUES ('a', 30, 2, '2026-01-31 12:00:00.5+02:00'),"
        " ('b', 40, 4, '2026-02-01'), ('new', 50, 1, NULL), ('odd', 30, 1, 'lately'),"
        " ('old', 130, 1, '2026-01-01')",
    )


async def test_an_answer_says_since_when_the_rows_hold(world: World) -> None:
    timed(world)
    async with world.serve(table="timed", asOf="since") as plane:
        keys = tensor("id", "BYTES", ["a", "b", "new"])
        answer = await plane.infer(keys, tensor("rate", "FP32", [1, 1, 1]))
        assert scores(answer)[:2] == [11.125, 12.125]
        told = {
            "features": "looked up",
            "features_as_of": ["2026-01-31T10:00:00.500000Z", "2026-02-01T00:00:00Z", None],
        }
        assert answer.json()["parameters"] == told
        everything = [tensor("age", "INT32", [30]), tensor("spend", "FP32", [2])]
        given = await plane.infer(*everything, tensor("rate", "FP32", [1]))
        assert "parameters" not in given.json()


async def test_a_time_that_cannot_be_read_is_the_databases_fault(world: World) -> None:
    timed(world)
    async with world.serve(table="timed", asOf="since") as plane:
        assert refused(await plane.infer(tensor("id", "BYTES", ["odd", "a"]), RATE)) == (
            502,
            "since: 'lately' is not a date or time such as 2026-01-31T12:30:00Z"
            " (the feature database, key 'odd') (row 0)",
        )
        keys = tensor("id", "BYTES", ["odd", "a", "old", "b"])
        rates = tensor("rate", "FP32", [1, 1, 1, 1])
        answer = await plane.infer(keys, rates, parameters={"partial": True})
        told = answer.json()["parameters"]
        assert told["rows"] == [1, 3]
        assert told["features_as_of"] == ["2026-01-31T10:00:00.500000Z", "2026-02-01T00:00:00Z"]


async def test_the_column_has_to_be_there(world: World) -> None:
    with pytest.raises(FeaturesMismatch, match="table people has no column since"):
        async with world.serve(asOf="since"):
            pass


async def test_a_row_is_looked_up_once_within_its_time(world: World) -> None:
    async with world.serve(cacheTtl="1h") as plane:
        assert scores(await plane.infer(KEYS, RATE)) == [11.125, 12.125]
        world.run("UPDATE people SET age = 0")
        assert scores(await plane.infer(KEYS, RATE)) == [11.125, 12.125]
        assert await plane.metric("fourways_feature_lookups_total") == 1
        assert await plane.metric("fourways_feature_cached_entities_total") == 2
