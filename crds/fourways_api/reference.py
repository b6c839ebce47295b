"""The ModelDeployment reference, generated from the types: fields, types, defaults, meanings.

``python -m fourways_api.reference`` writes docs/reference/modeldeployment.md; ``--check`` tells
whether it is current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .base import RULES_KEYWORD
from .crd import openapi_schema, update_or_check
from .deployment import API_VERSION, KIND, MAX_NAME
from .schema_hints import INT_OR_STRING

REFERENCE_FILE = Path(__file__).parents[2] / "docs" / "reference" / "modeldeployment.md"

Schema = dict[str, Any]

HEAD = f"""<!-- Made from the types by `python -m fourways_api.reference`; do not edit. -->

# {KIND}

`apiVersion: {API_VERSION}`, `kind: {KIND}`. The name has at most {MAX_NAME} characters: lower
case letters, digits and `-`, starting with a letter. `kubectl explain modeldeployment.spec` shows
the same text; `fourways validate FILE` checks a file with the rules below.

A duration has a form such as `250ms`, `90s` or `1h30m`. Fields in bold are required.
"""


def render() -> str:
    """Return the reference as Markdown."""
    schema = openapi_schema()["properties"]
    sections = [*_sections("spec", schema["spec"]), *_sections("status", schema["status"])]
    return HEAD + "".join(f"\n{section}" for section in sections)


def _sections(path: str, schema: Schema) -> Iterator[str]:
    lines = [f"## {path}", "", schema["description"], ""]
    lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        shown = f"**{name}**" if name in required else name
        cells = (shown, _type(field), _default(field), field.get("description", ""))
        lines.append(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |")
    if rules := [*_rules(schema)]:
        lines += ["", "Refused:", ""]
        lines += [f"- {_place(r)}{r['message']}." for r in rules]
    yield "\n".join(lines) + "\n"
    for name, field in schema["properties"].items():
        inner, suffix = (field["items"], "[]") if field.get("type") == "array" else (field, "")
        if "properties" in inner:
            yield from _sections(f"{path}.{name}{suffix}", {**field, **inner})


def _rules(schema: Schema) -> Iterator[Schema]:
    """Yield an object's rules, and those of its scalar fields."""
    yield from schema.get(RULES_KEYWORD, ())
    for name, field in schema["properties"].items():
        if "properties" not in field:
            yield from ({**rule, "fieldPath": f".{name}"} for rule in field.get(RULES_KEYWORD, ()))


def _type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{v}`" for v in field["enum"])
    if INT_OR_STRING in field:
        return "whole number or string"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}{_limits(field, 'minItems', 'maxItems')}"
    if "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    words = {"integer": "whole number", "boolean": "true or false"}
    limits = _limits(field, "minimum", "maximum") if field["type"] != "string" else ""
    return words.get(field["type"], str(field["type"])) + limits


def _limits(field: Schema, low: str, high: str) -> str:
    least, most = field.get(low), field.get(high)
    if least is None and most is None:
        return ""
    if least is None or most is None:
        return f", at most {most:g}" if least is None else f", at least {least:g}"
    return f", {_number(least)} to {_number(most)}"


def _number(value: float) -> str:
    return f"{value:,.10g}".replace(",", " ")


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _place(rule: Schema) -> str:
    return f"`{rule['fieldPath'].lstrip('.')}`: " if "fieldPath" in rule else ""


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` tell whether it is current."""
    return update_or_check(
        REFERENCE_FILE, render(), "fourways_api.reference", "--check" in arguments
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
