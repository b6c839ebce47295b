"""What an ONNX graph says about its data: class labels, the categories of encoders, its producer.

Declares to protobuf the fields that it reads, as the loader does (:mod:`.onnx_graph`).
"""

from __future__ import annotations

import re
from typing import Any

from .hints import Hints, texts
from .onnx_graph import summarise
from .protobuf_schema import Schema, message_class

_SCHEMA: Schema = {
    "Model": {
        "producer_name": (2, "bytes"),
        "producer_version": (3, "bytes"),
        "graph": (7, "Graph"),
    },
    "Graph": {"node": (1, "*Node"), "input": (11, "*Value")},
    "Value": {"name": (1, "bytes")},
    "Node": {"input": (1, "*bytes"), "op_type": (4, "bytes"), "attribute": (5, "*Attribute")},
    "Attribute": {"name": (1, "bytes"), "ints": (8, "*int64"), "strings": (9, "*bytes")},
}
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints", "cats_strings")
_CLASSIFIERS = frozenset(
    {"ZipMap", "TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier", "CategoryMapper"}
)


# CatBoost writes the whole description of its build, of many lines.
_VERSION = re.compile(r"[\w.+-]+\Z")


def onnx_hints(raw: bytes) -> Hints:
    """Read the hints of a model that loads."""
    model = message_class("fourways.onnx_hints", _SCHEMA)()
    model.ParseFromString(raw)
    labels: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = {}
    inputs = {_text(each.name) for each in model.graph.input}
    for node in model.graph.node:
        operator = _text(node.op_type)
        if operator in _CLASSIFIERS:
            labels = _labels(node) or labels
        elif operator == "OneHotEncoder" and len(node.input) == 1:
            source = _text(node.input[0])
            known = texts([_text(each) for each in _attribute(node, "cats_strings")])
            if source in inputs and known:
                categories[source] = known
    version = _VERSION.match(_text(model.producer_version))
    producer = " ".join(filter(None, (_text(model.producer_name), version and version[0])))
    notes = (f"made by {producer}",) if producer else ()
    external = bool(summarise(raw).external)
    return Hints(labels=labels, categories=categories, notes=notes, external=external)


def _labels(node: Any) -> tuple[str, ...]:
    for name in _LABELS:
        found = _attribute(node, name)
        if found:
            return texts([_text(each) if isinstance(each, bytes) else each for each in found])
    return ()


def _attribute(node: Any, name: str) -> list[Any]:
    for each in node.attribute:
        if _text(each.name) == name:
            return list(each.strings) or list(each.ints)
    return []


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
