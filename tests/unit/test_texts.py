"""Texts as inputs of models that read tokens: the same tokens in every mode."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from onnx import TensorProto
from prometheus_client import CollectorRegistry

from fourways_api import Contract, InputField
from fourways_api.runtime_config import EdgeConfig, StreamConfig
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import ContractMismatch, DigestMismatch, ModelError, NotPublishable
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.model.onnx_model import load_onnx
from fourways_runtime.scoring.model.text_model import TextModel, reading_texts
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordRefused, RecordScorer
from fourways_runtime.workloads.batch import BatchRun
from fourways_runtime.workloads.edge import build
from fourways_runtime.workloads.prepare import prepare
from fourways_runtime.workloads.streaming.shell import Shell
from tests.kit import texts
from tests.kit.batch_world import World
from tests.kit.edge_plane import edge_config
from tests.kit.models import Function
from tests.kit.serving_plane import configure, serving, tensor
from tests.kit.stores import ask
from tests.kit.texts import LENGTH, TEXTS, expected


def bound(folder: Path, raw: bytes | None = None, **tokens: Any) -> tuple[Contract, Any]:
    contract = Contract.model_validate(texts.contract(**tokens))
    file = folder / "model.onnx"
    file.write_bytes(raw or texts.classifier())
    return contract, reading_texts(load_onnx(file, threads=1), contract, texts.written(folder))


def scores(contract: Contract, model: Any, given: list[str]) -> Any:
    keys = np.array([str(at) for at in range(len(given))], object)
    scored = Pipeline(contract, model).score_columns(keys, {"review": np.array(given, object)})
    assert not scored.rejects
    return scored.predictions.columns["scores"]


def test_a_text_is_cut_and_padded_as_the_library_does(tmp_path: Path) -> None:
    contract, model = bound(tmp_path)
    np.testing.assert_array_equal(scores(contract, model, TEXTS), expected(TEXTS))


@pytest.mark.parametrize("multiple", [1, 4, 100])
def test_a_text_gives_the_same_whatever_else_is_in_its_batch(tmp_path: Path, multiple: int) -> None:
    contract, model = bound(tmp_path, padToMultipleOf=multiple)
    together = scores(contract, model, TEXTS * 50)
    alone = np.concatenate([scores(contract, model, [text]) for text in TEXTS] * 50)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(alone, expected(TEXTS * 50), rtol=1e-6)


def test_texts_are_padded_to_the_multiple_and_no_further_than_the_maximum(tmp_path: Path) -> None:
    asked = []

    def answer(given: Any) -> Any:
        asked.append(given["input_ids"].shape)
        return {"y": np.zeros((len(given["input_ids"]), 2), np.float32)}

    names = ("input_ids", "attention_mask", "token_type_ids")
    inner = Function(
        tuple(Tensor(name, "int32", (None, None)) for name in names),
        (Tensor("y", "float32", (None, 2)),),
        answer,
    )
    contract = Contract.model_validate(texts.contract(padToMultipleOf=5))
    model = reading_texts(inner, contract, texts.written(tmp_path))
    scores(contract, model, ["good", "good good good good", "good " * 50, "bad"])
    assert asked == [(2, 5), (1, 10), (1, LENGTH)]
    assert {each.dtype.name for each in inner.asked.values()} == {"int32"}
    assert inner.asked.keys() == set(names)


def test_calls_of_the_model_are_bounded(tmp_path: Path) -> None:
    rows = []

    def answer(given: Any) -> Any:
        rows.append(len(given["input_ids"]))
        return {"y": given["input_ids"][:, 1:3].astype(np.float32)}

    inner = Function(
        (Tensor("input_ids", "int64", (None, None)),), (Tensor("y", "float32", (None, 2)),), answer
    )
    contract = Contract.model_validate(texts.contract(maxLength=512))
    model = reading_texts(inner, contract, texts.written(tmp_path))
    found = scores(contract, model, [word for word in ("good", "bad") for _ in range(50)])
    assert max(rows) <= 2**18 // (24 * 512)
    assert sum(rows) == 100
    assert len(np.unique(found[:50], axis=0)) == len(np.unique(found[50:], axis=0)) == 1
    assert (found[0] != found[50]).any()


def test_the_sides_of_cutting_and_padding(tmp_path: Path) -> None:
    raw = json.loads(texts.tokenizer_json())
    raw["padding"] = {
        "strategy": {"Fixed": 3},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 9,
        "pad_type_id": 4,
        "pad_token": "x",
    }
    names = ("input_ids", "attention_mask", "token_type_ids")
    inner = Function(
        tuple(Tensor(name, "int64", (None, 6)) for name in names), (), lambda given: {}
    )
    field = InputField.model_validate(
        {
            "name": "t",
            "type": "string",
            "tokens": {"maxLength": 6, "truncationSide": "Left", "specialTokens": False},
        }
    )
    model = TextModel(inner, [field], json.dumps(raw))
    model.predict({"t": np.array(["film the bad the good the end was", "bad"], object)})
    ids = inner.asked["input_ids"]
    assert ids[1, :5].tolist() == [9] * 5
    model.predict({"t": np.array(["bad the good the end was"], object)})
    assert inner.asked["input_ids"][0].tolist() == ids[0].tolist()
    model.predict({"t": np.array(["bad"], object)})
    assert inner.asked["attention_mask"].tolist() == [[0, 0, 0, 0, 0, 1]]
    assert inner.asked["token_type_ids"].tolist() == [[4, 4, 4, 4, 4, 0]]


def test_a_model_of_one_row_reads_texts_one_by_one(tmp_path: Path) -> None:
    contract, model = bound(tmp_path, texts.classifier(LENGTH, rows=1))
    np.testing.assert_array_equal(scores(contract, model, TEXTS), expected(TEXTS))


def test_a_missing_text_is_refused_or_empty(tmp_path: Path) -> None:
    contract, model = bound(tmp_path)
    with pytest.raises(RecordRefused, match=r"review: .*missing"):
        RecordScorer(contract, model).ask({"review": None})
    (field,) = contract.inputs
    nullable = contract.model_copy(
        update={"inputs": (field.model_copy(update={"nullable": True}),)}
    )
    found = RecordScorer(nullable, model).ask({"review": None})
    assert found["scores"] == expected([""])[0].tolist()


@pytest.mark.parametrize(
    ("tokens", "tensors", "told"),
    [
        ({"maxLength": 2}, {}, r"tokens.maxLength: the tokenizer adds 2 special tokens"),
        ({"padToken": "<none>"}, {}, r"tokens.padToken: the tokenizer has no token <none>"),
        (
            {"ids": "words"},
            {},
            r"tokens.ids: the model has no input words; its inputs are input_ids",
        ),
        ({"mask": "m"}, {}, r"tokens.mask: the model has no input m"),
        ({}, {"input_ids": ("float32", (None, None))}, r"tokens.ids: .*input_ids is float32"),
        ({}, {"input_ids": ("int64", (None,))}, r"input_ids has 1 dimensions"),
        ({}, {"input_ids": ("int64", (None, 8))}, r"input_ids takes 8 tokens; set maxLength to 8"),
        ({"padToMultipleOf": 4}, {"input_ids": ("int64", (None, 12))}, "without padToMultipleOf"),
    ],
)
def test_what_does_not_fit_the_model_is_named(
    tmp_path: Path, tokens: dict[str, Any], tensors: dict[str, Any], told: str
) -> None:
    declared = {"input_ids": ("int64", (None, None)), **tensors}
    inner = Function(tuple(Tensor(n, *each) for n, each in declared.items()), (), lambda _: {})
    contract = Contract.model_validate(texts.contract(**tokens))
    with pytest.raises(ContractMismatch, match=told):
        reading_texts(inner, contract, texts.written(tmp_path))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not a tokenizer.json"),
        (b"[" * 100_000, "not a tokenizer.json"),
        (b'{"model": {"type": "Other"}}', "not a tokenizer.json"),
        (b"\xff", "byte 0 is not UTF-8"),
        (
            texts.changed(
                model={"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []},
                post_processor=None,
            ).encode(),
            "dropout null",
        ),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, raw: bytes, told: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(raw)
    inner = Function((Tensor("input_ids", "int64", (None, None)),), (), lambda _: {})
    with pytest.raises(ContractMismatch, match=told):
        reading_texts(inner, Contract.model_validate(texts.contract()), file)


def test_two_texts_have_tensors_of_their_own(tmp_path: Path) -> None:
    document = texts.contract()
    (field,) = document["inputs"]
    document["inputs"] = [field, field | {"name": "title"}]
    inner = Function(
        tuple(Tensor(name, "int64", (None, None)) for name in ("input_ids", "title_ids")),
        (Tensor("y", "float32", (None, 2)),),
        lambda given: {"y": np.stack([each[:, 1] for each in given.values()], 1)},
    )
    file = texts.written(tmp_path)
    with pytest.raises(ContractMismatch, match="two inputs give tokens to the model's input_ids"):
        reading_texts(inner, Contract.model_validate(document), file)
    document["inputs"][1]["tokens"] = {"maxLength": 8, "ids": "title_ids", "padToMultipleOf": 4}
    contract = Contract.model_validate(document)
    scorer = RecordScorer(contract, reading_texts(inner, contract, file))
    found = [
        scorer.ask({"review": a, "title": b})["scores"]
        for a, b in itertools.product(["good", "bad"], ["good", "bad"])
    ]
    assert found[0][0] == found[0][1] == found[1][0] == found[2][1]
    assert len({tuple(each) for each in found}) == 4
    assert (inner.asked["input_ids"].shape, inner.asked["title_ids"].shape) == ((1, 12), (1, 4))


def test_texts_that_the_tokenizer_fails_on_are_not_told(tmp_path: Path) -> None:
    raw = texts.changed(
        model={
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "vocab": {"a": 0},
            "max_input_chars_per_word": 5,
            "continuing_subword_prefix": "##",
        },
        post_processor=None,
        added_tokens=[],
    )
    inner = Function((Tensor("input_ids", "int64", (None, None)),), (), lambda _: {})
    field = InputField.model_validate(texts.contract(padToken="a")["inputs"][0])
    with pytest.raises(ModelError, match="the tokenizer fails") as caught:
        TextModel(inner, [field], raw).predict({"review": np.array(["secret"], object)})
    assert "secret" not in str(caught.value)


# ---------------------------------------------------------------- the modes


def world_of(root: Path, **more: Any) -> tuple[World, dict[str, Any]]:
    world = World(root, f"sqlite:///{root}/store.db", "shop")
    world.file("model.onnx").write_bytes(texts.classifier())
    world.file("tokenizer.json").write_bytes(texts.tokenizer_json())
    return world, texts.contract() | more


def test_a_run_scores_the_texts_of_a_table(tmp_path: Path) -> None:
    world, contract = world_of(tmp_path)
    world.table(id=[f"c{at}" for at in range(len(TEXTS))], review=TEXTS)
    config = world.config(contract=contract)
    assert BatchRun(config, "r1").execute().rows == len(TEXTS)
    ((table,),) = ask(world.uri, "SELECT table_name FROM {0}runs", "shop")
    query = f"SELECT label FROM {{0}}{table} ORDER BY id"  # noqa: S608  (a name of ours)
    assert [label for (label,) in ask(world.uri, query, "shop")] == labels()


def test_a_tokenizer_with_another_digest_is_refused(tmp_path: Path) -> None:
    world, contract = world_of(tmp_path)
    world.file("tokenizer.json").write_bytes(texts.tokenizer_json() + b" ")
    with pytest.raises(DigestMismatch):
        prepare(world.config(contract=contract))


async def test_a_model_server_answers_texts(tmp_path: Path) -> None:
    config = configure(tmp_path, texts.classifier(), texts.contract())
    texts.written(tmp_path / "volumes" / "data")
    async with serving(config) as plane:
        answer = await plane.infer(tensor("review", "BYTES", TEXTS))
        alone = [await plane.infer(tensor("review", "BYTES", [text])) for text in TEXTS]
    found = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    assert found["label"] == labels()
    wanted = expected(TEXTS)
    np.testing.assert_array_equal(np.float32(found["scores"]), wanted.reshape(-1))
    one_by_one = [each.json()["outputs"][1]["data"] for each in alone]
    np.testing.assert_array_equal(np.float32(one_by_one), wanted)


def test_a_stream_worker_scores_events_with_texts(tmp_path: Path) -> None:
    world, contract = world_of(tmp_path)
    source = {"nats": {"servers": "nats://none", "stream": "S", "subject": "s"}}
    document = world.config(contract=contract).to_json() | {"streaming": {"source": source}}
    del document["batch"]
    config = StreamConfig.model_validate(document)
    scorer = Shell(config, CollectorRegistry()).scorer(prepare(config))
    bodies = [orjson.dumps({"id": str(at), "review": text}) for at, text in enumerate(TEXTS)]
    count = len(TEXTS)
    events = Events([0] * count, range(count), [None] * count, bodies, lambda at: ())
    scored = scorer.score(events)
    assert scored.refusals == {}
    assert list(scored.predictions.columns["label"]) == labels()


def test_a_bundle_contains_the_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[dict[str, bytes]] = []

    def caught(config: EdgeConfig, model: Path, folder: Path, size: int) -> Any:
        files.append({each.name: each.read_bytes() for each in folder.iterdir()})
        raise NotPublishable("enough")

    monkeypatch.setattr(build, "_measured", caught)
    config = edge_config(tmp_path, texts.classifier(), texts.contract(), texts.golden())
    texts.written(tmp_path / "volumes" / "data")
    with pytest.raises(NotPublishable, match="enough"):
        build.build(config)
    assert files[0][layout.TOKENIZER_FILE] == texts.tokenizer_json()
    contract = Contract.model_validate_json(files[0][layout.CONTRACT_FILE])
    assert contract.tokenizer is not None
    assert contract.tokenizer.uri == "file:///tokenizer.json"


def labels() -> list[str]:
    return ["bad" if y[0] >= y[1] else "good" for y in expected(TEXTS)]


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.FLOAT])
def test_tensors_of_other_numbers(tmp_path: Path, kind: int) -> None:
    raw = texts.classifier(LENGTH, kind)
    if kind == TensorProto.FLOAT:
        with pytest.raises((ContractMismatch, ModelError)):
            bound(tmp_path, raw)
        return
    contract, model = bound(tmp_path, raw)
    np.testing.assert_array_equal(scores(contract, model, TEXTS), expected(TEXTS))
