"""A JSON Schema of manifests, for editors: completion, descriptions and unknown fields.

``python -m fourways_api.editor_schema`` writes the checked-in file; ``--check`` tells whether it is
current. It is made from the CRD's schema, which editors cannot read, and knows no rules across
fields: ``fourways validate`` does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .crd import Schema, openapi_schema, update_or_check
from .deployment import API_VERSION, KIND

SCHEMA_FILE = Path(__file__).parent.parent / "modeldeployment.schema.json"
HEADER = "# yaml-language-server: $schema="
"""Start of the line by which a manifest names its schema."""


def manifest_schema() -> Schema:
    """Return the schema of a manifest, as draft 2020-12."""
    schema = _for_editors(openapi_schema()["properties"]["spec"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": KIND,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": KIND},
            "metadata": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}},
            },
            "spec": schema,
            "status": {"type": "object"},
        },
    }


def _for_editors(source: Schema) -> Schema:
    """Return a part of the CRD's schema without what only the API server knows."""
    made: Schema = {}
    for keyword, value in source.items():
        match keyword:
            case "x-kubernetes-int-or-string":
                made["type"] = ["integer", "string"]
            case _ if keyword.startswith("x-kubernetes"):
                continue
            case "properties":
                made[keyword] = {name: _for_editors(part) for name, part in value.items()}
                # A misspelled field would be dropped by the API server without a word.
                made["additionalProperties"] = False
            case "items" | "additionalProperties" if isinstance(value, dict):
                made[keyword] = _for_editors(value)
            case "exclusiveMinimum" | "exclusiveMaximum":
                continue
            case "minimum" | "maximum":
                exclusive = "exclusive" + keyword.capitalize()
                made[exclusive if source.get(exclusive) else keyword] = value
            case _:
                made.setdefault(keyword, value)
    return made


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` tell whether it is current."""
    text = json.dumps(manifest_schema(), indent=1) + "\n"
    return update_or_check(SCHEMA_FILE, text, "fourways_api.editor_schema", "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
