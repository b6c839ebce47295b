"""The CustomResourceDefinition, generated from the types.

``python -m fourways_api.crd`` writes the checked-in YAML; ``--check`` tells whether it is current.

pydantic generates JSON Schema. The API server requires a *structural* schema, which is a subset:
no ``$ref``, no ``anyOf`` with null (a field that is not required is optional), no titles, and
exclusive bounds in the old form. All else (rules, list keys, docs, defaults) is in the schema.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .base import RULES_KEYWORD
from .deployment import GROUP, KIND, PLURAL, VERSION, ModelDeployment
from .schema_hints import INT_OR_STRING, LIST_KEYS, LIST_TYPE
from .yaml_text import dump_yaml

Schema = dict[str, Any]

CRD_FILE = Path(__file__).parent.parent / f"{GROUP}_{PLURAL}.yaml"

PRINTER_COLUMNS = (
    ("Mode", "string", ".status.mode", "Mode of the deployment", 0),
    (
        "Ready",
        "string",
        '.status.conditions[?(@.type=="Ready")].status',
        "Whether it serves predictions",
        0,
    ),
    (
        "Version",
        "string",
        ".status.model.version",
        "Version of the model that serves predictions",
        0,
    ),
    ("Last Run", "date", ".status.lastRun.startedAt", "Start of the latest run", 0),
    # Not a date: kubectl prints a date as an age, and one in the future as <invalid>.
    ("Next Run", "string", ".status.nextRun", "Time of the next scheduled run", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Reason for Ready", 1),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation", 0),
)


def custom_resource_definition() -> Schema:
    """Return the CRD as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mdep"],
                "categories": ["fourways"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*c) for c in PRINTER_COLUMNS],
                    "schema": {"openAPIV3Schema": openapi_schema()},
                }
            ],
        },
    }


def _column(name: str, kind: str, path: str, description: str, priority: int) -> Schema:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def openapi_schema() -> Schema:
    """Return the structural schema of a ModelDeployment."""
    source = ModelDeployment.model_json_schema(by_alias=True, mode="validation")
    # Kubernetes defines these three fields, and a schema may say nothing more about them.
    source["properties"] |= {
        "apiVersion": {"type": "string", "description": "Version of this API."},
        "kind": {"type": "string", "description": f"Always {KIND}."},
        "metadata": {"type": "object"},
    }
    schema = _structural(source, source["$defs"])
    schema["required"] = ["spec"]
    # Until the operator has written a status: for tools that read kstatus, an object that has none
    # is ready.
    schema["properties"]["status"]["default"] = {"observedGeneration": 0}
    for rule in schema[RULES_KEYWORD]:
        # A rule's path must exist in the schema, and metadata has no schema here.
        rule.pop("fieldPath", None)
    return schema


def _structural(source: Schema, definitions: dict[str, Schema], *, in_list: bool = False) -> Schema:
    """Return a structural schema.

    Inside list items a default appears only in the description. Otherwise the API server would add
    it to the stored items. kubectl and Argo CD would then see a difference from the manifest, and
    every apply would change the object again. The operator adds the same default when it reads.
    """
    source = _inlined(_without_null(source), definitions)
    if in_list and source.get("default") is not None:
        source = _described_default(source)
    result: Schema = {}
    for keyword, value in source.items():
        match keyword:
            case "title" | "$defs" | "propertyNames":
                continue
            case "additionalProperties" if isinstance(value, bool):
                continue
            case "additionalProperties":
                result[keyword] = _structural(value, definitions, in_list=in_list)
            case "patternProperties" if len(value) == 1:
                # A map. The schema can't say what its keys look like: the operator checks them.
                (values,) = value.values()
                result["additionalProperties"] = _structural(values, definitions, in_list=in_list)
            case "properties":
                result[keyword] = {
                    n: _structural(s, definitions, in_list=in_list) for n, s in value.items()
                }
            case "items":
                result[keyword] = _structural(value, definitions, in_list=True)
            case "description":
                result[keyword] = " ".join(value.split())
            case "const":
                result["enum"] = [value]
            case "exclusiveMinimum" | "exclusiveMaximum":
                result[keyword.removeprefix("exclusive").lower()] = value
                result[keyword] = True
            case "default" if value is None:
                continue
            case "default" if isinstance(value, dict):
                # A default must itself satisfy the schema, which does not allow null.
                result[keyword] = {n: v for n, v in value.items() if v is not None}
            case _ if keyword in _CARRIED:
                result[keyword] = value
            case _:
                raise TypeError(f"the API server's schema cannot say {keyword}: {source}")
    return result


def _described_default(source: Schema) -> Schema:
    default = json.dumps(source["default"])
    description = f"{source.get('description', '')} Default: {default}."
    return {k: v for k, v in source.items() if k != "default"} | {"description": description}


_CARRIED = {
    "type",
    "enum",
    "default",
    "required",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "minimum",
    "maximum",
    RULES_KEYWORD,
    LIST_TYPE,
    LIST_KEYS,
    INT_OR_STRING,
}


def _inlined(source: Schema, definitions: dict[str, Schema]) -> Schema:
    """Replace a ``$ref`` by its definition; keys beside it (a field's own docs) take precedence."""
    if "$ref" not in source:
        return source
    beside = {k: v for k, v in source.items() if k != "$ref"}
    return definitions[source["$ref"].removeprefix("#/$defs/")] | beside


def _without_null(source: Schema) -> Schema:
    """Replace ``anyOf`` [X, null] by X."""
    if "anyOf" not in source:
        return source
    choices: list[Schema] = [c for c in source["anyOf"] if c.get("type") != "null"]
    if len(choices) != 1:
        raise TypeError(f"a union of types has no structural schema: {source}")
    beside = {k: v for k, v in source.items() if k != "anyOf"}
    return choices[0] | beside


def render() -> str:
    """Return the CRD as the checked-in YAML text."""
    head = "# Made from the types by `python -m fourways_api.crd`; do not edit.\n"
    return head + dump_yaml(custom_resource_definition())


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` tell whether it is current."""
    return update_or_check(CRD_FILE, render(), "fourways_api.crd", "--check" in arguments)


def update_or_check(path: Path, text: str, module: str, check: bool) -> int:
    """Write a generated file, or tell (by exit code) whether it is current."""
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return 0
    if path.exists() and path.read_text() == text:
        return 0
    print(f"{path} is not current; run python -m {module}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
