"""Read and write YAML as kubectl does.

YAML 1.1 has dialects, and a value must mean the same here and at the API server: to kubectl
``1e-5`` is a number, ``2024-01-01`` and ``1:30`` are strings, and ``y`` is true. So a field named
y is quoted when it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from .display import has_hidden

_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_INT = re.compile(r"^[-+]?(?:0b[0-1_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_BOOL = re.compile(
    r"^(?:[yYnN]|yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"
)
_KUBECTL = (
    (f"{_TAG}bool", _BOOL, "yYnNtTfFoO"),
    (f"{_TAG}int", _INT, "-+0123456789"),
    (f"{_TAG}float", _FLOAT, "-+0123456789."),
)


class KubectlLoader(yaml.SafeLoader):
    """PyYAML's loader with kubectl's rules for scalars."""


class _Dumper(yaml.SafeDumper):
    """Quotes any text that either dialect would not read as text; writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


KubectlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in {f"{_TAG}null", f"{_TAG}merge"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in _KUBECTL:
    KubectlLoader.add_implicit_resolver(_tag, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def _construct_bool(loader: KubectlLoader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in {"y", "yes", "true", "on"}


def _construct_float(loader: KubectlLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


KubectlLoader.add_constructor(f"{_TAG}bool", _construct_bool)
KubectlLoader.add_constructor(f"{_TAG}float", _construct_float)


def dump_yaml(*documents: Any) -> str:
    """Write documents so that kubectl reads back the same values.

    A document with terminal control characters is written in ASCII, with these escaped.
    """
    return _joined(map(_dumped, documents))


def flow_yaml(value: Any) -> str:
    """Write a value on one line, as :func:`dump_yaml` would write it: a scalar, ``[…]``, ``{…}``.

    A value with terminal control characters is written in ASCII, with these escaped.
    """
    text = _in_flow(value, allow_unicode=True)
    return _in_flow(value, allow_unicode=False) if has_hidden(text) else text


def _in_flow(value: Any, *, allow_unicode: bool) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=allow_unicode,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _dumped(document: Any) -> str:
    text = _written(document, allow_unicode=True)
    return _written(document, allow_unicode=False) if has_hidden(text) else text


def _written(document: Any, *, allow_unicode: bool) -> str:
    text: str = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=allow_unicode
    )
    return text


def _joined(texts: Iterable[str]) -> str:
    return "---\n".join(texts)
