"""Read YAML files as kubectl does, and record the line of every field.

Knows nothing about ModelDeployments except how to distinguish one from a Secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from .deployment import GROUP, KIND
from .problems import InvalidSpec, Problem
from .yaml_text import KubectlLoader

MAX_SHOWN = 80
"""Maximum number of characters of a value in a message."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file: its data, and the position of each field."""

    data: dict[str, Any]
    number: int
    """Its position in the file, from 1."""
    node: yaml.Node
    faults: tuple[Problem, ...] = ()
    """YAML errors: duplicate keys."""

    @property
    def is_ours(self) -> bool:
        """True unless the document declares another kind of object, such as a Secret."""
        version, kind = self.data.get("apiVersion"), self.data.get("kind")
        if kind == KIND or (isinstance(version, str) and version.partition("/")[0] == GROUP):
            return True
        return not (version and kind)

    @property
    def title(self) -> str:
        """Kind and name, as far as they are present."""
        metadata = self.data.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return f"{self.data.get('kind') or 'document'} {name or f'number {self.number}'}"

    def line(self, field: str) -> int:
        """Return the line of a field such as ``spec.inputs[2].name``, or of its nearest parent."""
        *_, (_, line) = self._way_to(field)
        return line + 1

    def text(self, field: str) -> str | None:
        """Return a scalar as written in the file; None for a field that is not a scalar."""
        way = list(self._way_to(field))
        node = way[-1][0]
        found = len(way) == len(_keys(field)) + 1 and isinstance(node, yaml.ScalarNode)
        return str(node.value) if found and len(node.value) <= MAX_SHOWN else None

    def _way_to(self, field: str) -> Iterator[tuple[yaml.Node, int]]:
        """Yield the nodes, each with its line, from the document down to a field."""
        entry: tuple[yaml.Node, int] | None = (self.node, self.node.start_mark.line)
        for key in (None, *_keys(field)):
            entry = entry if key is None or entry is None else _child(entry[0], key)
            if entry is None:
                return
            yield entry


def _keys(field: str) -> list[str | int]:
    return [key or int(index) for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", field)]


def read_documents(text: str) -> list[Document]:
    """Read the YAML (or JSON) documents of a file; each item of a List is a document.

    Raises:
        InvalidSpec: the text is not YAML, or a document is not an object.

    """
    return list(_expanded(_read(text)))


def load_documents(text: str) -> list[dict[str, Any]]:
    """Read the YAML documents of a file as plain data.

    Raises:
        InvalidSpec: the text is not YAML, a document is not an object, or a key is duplicated.

    """
    documents = read_documents(text)
    faults = tuple(f for d in documents for f in d.faults)
    if faults:
        raise InvalidSpec(faults)
    return [d.data for d in documents]


class _Loader(KubectlLoader):
    """Records duplicate keys, which the API server refuses."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[Problem] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                fault = f"the key {key.value} occurs twice"
                self.faults.append(Problem(f"line {line}", fault, "remove one of them"))
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return node


def _read(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        number = 0
        while loader.check_node():
            known = len(loader.faults)
            node = loader.get_node()
            if node is None:
                break
            data = loader.construct_document(node)
            if data is None:
                continue
            number += 1
            if not isinstance(data, dict):
                line = node.start_mark.line + 1
                what = f"found {_kind_of(data)}, expected an object"
                raise InvalidSpec((Problem(f"line {line}", what, f"write a {KIND}"),))
            yield Document(data, number, node, tuple(loader.faults[known:]))
    except yaml.YAMLError as error:
        raise InvalidSpec((_not_yaml(error),)) from None
    except RecursionError:
        raise InvalidSpec((Problem("file", "nested too deeply", "reduce the nesting"),)) from None
    except ValueError as error:
        if isinstance(error, InvalidSpec):
            raise
        raise InvalidSpec((Problem("file", f"not YAML: {error}", "correct it"),)) from None
    finally:
        loader.dispose()


def _not_yaml(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}" if mark else "file"
    said = getattr(error, "problem", None) or str(error)
    if "cannot start any token" in said and "\\t" in said:
        return Problem(where, "not YAML: a tab where spaces are expected", "indent with spaces")
    return Problem(where, f"not YAML: {said}", "correct the line, or the indentation above it")


def _kind_of(data: object) -> str:
    return {"list": "a list", "str": "a text"}.get(type(data).__name__, "a single value")


def _expanded(documents: Iterator[Document]) -> Iterator[Document]:
    for document in documents:
        items = document.data.get("items")
        nodes = _child(document.node, "items")
        if document.data.get("kind") != "List" or not isinstance(items, list) or not nodes:
            yield document
            continue
        for index, item in enumerate(items):
            entry = _child(nodes[0], index)
            if isinstance(item, dict) and entry:
                yield Document(item, document.number, entry[0], document.faults)


def _child(node: yaml.Node, key: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key].start_mark.line
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == key:
                return value, name.start_mark.line
    return None
