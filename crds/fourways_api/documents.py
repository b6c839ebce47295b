"""Reading YAML files as kubectl reads them, remembering the line of every field.

YAML 1.1 has dialects, and a value must not be one thing here and another at the API server: to
kubectl ``1e-5`` is a number, ``2024-01-01`` and ``1:30`` are strings, ``y`` is true, and a key
given twice is an error. Knows nothing of ModelDeployments beyond how to tell one from a Secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from .deployment import GROUP, KIND
from .problems import InvalidSpec, Problem


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file: its data, and where each field stands."""

    data: dict[str, Any]
    number: int
    """Its place in the file, from 1."""
    node: yaml.Node
    faults: tuple[Problem, ...] = ()
    """What is wrong with it as YAML: keys given twice."""

    @property
    def is_ours(self) -> bool:
        """True unless the document says that it is another kind of object, such as a Secret."""
        version, kind = self.data.get("apiVersion"), self.data.get("kind")
        if kind == KIND or (isinstance(version, str) and version.partition("/")[0] == GROUP):
            return True
        return not (version and kind)

    @property
    def title(self) -> str:
        """Kind and name, as far as they are there."""
        metadata = self.data.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return f"{self.data.get('kind') or 'document'} {name or f'number {self.number}'}"

    def line(self, field: str) -> int:
        """Return the line of a field such as ``spec.inputs[2].name``, or of its nearest parent."""
        node, line = self.node, self.node.start_mark.line
        for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", field):
            entry = _child(node, key or int(index))
            if entry is None:
                break
            node, line = entry
        return line + 1


def read_documents(text: str) -> list[Document]:
    """Read the YAML (or JSON) documents of a file; the items of a List come one by one.

    Raises:
        InvalidSpec: the text is not YAML, or a document is not an object.

    """
    return list(_expanded(_read(text)))


def load_documents(text: str) -> list[dict[str, Any]]:
    """Read the YAML documents of a file as plain data.

    Raises:
        InvalidSpec: the text is not YAML, a document is not an object, or a key is given twice.

    """
    documents = read_documents(text)
    faults = tuple(f for d in documents for f in d.faults)
    if faults:
        raise InvalidSpec(faults)
    return [d.data for d in documents]


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with kubectl's idea of scalars."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[Problem] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                fault = f"the key {key.value} is given twice"
                self.faults.append(Problem(f"line {line}", fault, "keep one of them"))
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return node


_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_INT = re.compile(r"^[-+]?(?:0b[0-1_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_BOOL = re.compile(
    r"^(?:[yY]|yes|Yes|YES|[nN]|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"
)
_KEPT = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return loader.construct_scalar(node).lower() in {"y", "yes", "true", "on"}


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(
        loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


_Loader.add_constructor("tag:yaml.org,2002:bool", _construct_bool)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


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
                what = f"{_kind_of(data)} where an object was expected"
                raise InvalidSpec((Problem(f"line {line}", what, f"write a {KIND}"),))
            yield Document(data, number, node, tuple(loader.faults[known:]))
    except yaml.YAMLError as error:
        raise InvalidSpec((_not_yaml(error),)) from None
    except RecursionError:
        raise InvalidSpec((Problem("file", "nested too deep", "write it flatter"),)) from None
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
