"""Every reader of events finds the same key: scoring, tombstones, and labels from a topic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fourways_api import Contract
from fourways_api.runtime_config import StreamConfig
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.io.brokers.topic import TopicEvent
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.event_keys import broker_key
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.workloads import truth_topic
from fourways_runtime.workloads.streaming.scoring import EventScorer
from tests.kit.models import Function

HOSTILE = [
    b"5",
    b"-5",
    b"007",
    "५".encode(),
    "²".encode(),
    b"+5",
    b"1_000",
    b" 5",
    b"\xff\xfe",
    b"",
    b"9" * 19,
    b"9" * 5000,
    b"9223372036854775807",
    b"-9223372036854775808",
    b"a\0b",
]
"""Keys of brokers as other programs write them."""


def _zeros() -> Function:
    """Return a model whose y is 0."""
    tensors = Tensor("x", "float32", (None,)), Tensor("y", "float32", (None,))
    return Function(tensors[:1], tensors[1:], lambda t: {"y": np.zeros(len(t["x"]), np.float32)})


def _contract(kind: str) -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": kind},
            "inputs": [{"name": "x", "type": "float32"}],
            "outputs": [{"name": "y", "type": "float32"}],
        }
    )


def _scored(kind: str, key: bytes) -> list[Any]:
    contract, model = _contract(kind), _zeros()
    scorer = EventScorer(contract, model, Pipeline(contract, model), 4)
    one = Events([0], range(1), [key], [b'{"x": 1}'], lambda at: ())
    keys: list[Any] = scorer.score(one).predictions.keys.tolist()
    return keys


def _deleted(kind: str, key: bytes) -> list[Any]:
    contract, model = _contract(kind), _zeros()
    scorer = EventScorer(contract, model, Pipeline(contract, model), 4)
    return list(scorer.score(Events([0], range(1), [key], [None], lambda at: ())).deleted)


def _labelled(kind: str, key: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    def read(config: Any, topic: str, since: float) -> Iterator[list[TopicEvent]]:
        yield [TopicEvent(key, b'{"x": 1}')]

    monkeypatch.setattr(truth_topic, "read_topic", read)
    source = {"kafka": {"bootstrapServers": "k:9092", "topic": "t"}}
    config = StreamConfig.model_validate(
        {
            "namespace": "n",
            "name": "d",
            "model": {"uri": "pvc://data/m.onnx", "version": "1"},
            "contract": _contract(kind).to_json(),
            "streaming": {"source": source},
            "quality": {
                "output": "y",
                "label": "x",
                "time": "at",
                "topic": "l",
                "metrics": ["Accuracy"],
            },
        }
    )
    found: list[Any] = []
    for batch, rows, _ in truth_topic.label_chunks(config, _contract(kind), 0):
        records, _ = Decoder(_contract(kind)).decode(batch, rows)
        found += records.keys.tolist()
    return found


@pytest.mark.parametrize("kind", ["string", "int64"])
def test_a_label_and_a_tombstone_have_the_key_that_scoring_has(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in HOSTILE:
        scored = _scored(kind, key)
        assert (_deleted(kind, key), _labelled(kind, key, monkeypatch)) == (scored, scored), key


def test_only_ascii_digits_are_a_whole_number() -> None:
    assert [broker_key("int64", key) for key in (b"-5", "५".encode(), b"\xff", None)] == [
        -5,
        "५",
        None,
        None,
    ]
