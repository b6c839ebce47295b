from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import cel
import pytest

from fourways_api import crd, reference
from fourways_api.base import RULES_KEYWORD
from fourways_api.crd import CRD_FILE, openapi_schema
from tests.kit.yaml_files import load_yaml

Node = tuple[str, dict[str, Any]]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[Node]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


WHOLE = openapi_schema()
SPEC = WHOLE["properties"]["spec"]
NODES = [*nodes(SPEC, "spec"), *nodes(WHOLE["properties"]["status"], "status")]
RULES = [
    (path, schema, rule) for path, schema in nodes(WHOLE) for rule in schema.get(RULES_KEYWORD, ())
]


@pytest.mark.parametrize("module", [crd, reference])
def test_the_checked_in_file_is_current(module: Any) -> None:
    assert module.main(["--check"]) == 0


def test_update_writes_and_check_notices(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sub" / "x.yaml"
    assert crd.update_or_check(file, "new", "some.module", check=True) == 1
    assert "run python -m some.module" in capsys.readouterr().err
    assert crd.update_or_check(file, "new", "some.module", check=False) == 0
    assert crd.update_or_check(file, "new", "some.module", check=True) == 0
    assert crd.update_or_check(file, "newer", "some.module", check=True) == 1


def test_the_file_says_what_the_types_say() -> None:
    assert load_yaml(CRD_FILE.read_text()) == crd.custom_resource_definition()


# These look at hundreds of nodes and rules in one test each: a test for each takes longer to start.


def test_each_node_is_structural_documented_and_bounded() -> None:
    assert [f"{path}: {fault}" for path, node in NODES for fault in _faults(path, node)] == []


def test_the_check_of_nodes_can_fail() -> None:
    for node, fault in (
        ({"type": "string", "description": "x"}, "no maximum length"),
        ({"type": "string", "maxLength": 1}, "no description"),
        ({"anyOf": [], "enum": [], "description": "x"}, "not structural"),
        ({"type": "object", "properties": {}, "required": ["a"], "description": "x"}, "required"),
    ):
        (found,) = _faults("spec.x", node)
        assert fault in found


def _faults(path: str, schema: dict[str, Any]) -> Iterator[str]:
    if found := {"$ref", "anyOf", "allOf", "title", "patternProperties", "const"} & set(schema):
        yield f"not structural: {found}"
    if "\n" in schema.get("description", ""):
        yield "a description of several lines"
    if not path.endswith("[]") and not schema.get("description"):
        yield "no description: kubectl explain has nothing to say"
    match schema.get("type", "string"):
        case "string" if "enum" not in schema and not schema.get("maxLength"):
            yield "no maximum length"
        case "array" if not schema.get("maxItems"):
            yield "no maximum number of items"
        case "integer" if path.startswith("spec"):
            if not schema["minimum"] <= schema["maximum"]:
                yield "the minimum is above the maximum"
        case "object" if "additionalProperties" in schema:
            if not schema["additionalProperties"].get("maxLength"):
                yield "values without a maximum length"
            if not schema.get("maxProperties") or "properties" in schema:
                yield "not a bounded map"
        case "object" if not set(schema.get("required", ())) <= set(schema["properties"]):
            yield "required fields that it has not"


def test_an_object_that_the_operator_has_not_seen_is_not_ready_for_kstatus() -> None:
    """Flux takes an object without any status for one that is ready."""
    status = WHOLE["properties"]["status"]
    assert status["default"] == {"observedGeneration": 0}, "a generation begins with 1"


def test_no_rule_reads_a_field_that_need_not_be_there() -> None:
    """The API server fails a rule that reads an absent field, and with it the whole object."""
    for path, schema, rule in RULES:
        always = {"metadata", *schema.get("required", ())}
        always |= {name for name, s in schema.get("properties", {}).items() if "default" in s}
        read = set(re.findall(r"self\.([A-Za-z]\w*)", rule["rule"]))
        guarded = set(re.findall(r"has\(self\.([A-Za-z]\w*)", rule["rule"]))
        unguarded = (read & set(schema.get("properties", ()))) - always - guarded
        assert not unguarded, f"{path}: {rule['message']}"


def test_patterns_mean_the_same_to_rust_and_go() -> None:
    for pattern in {s["pattern"] for _, s in NODES if "pattern" in s}:
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        assert not re.search(r"\\[wWsSdDbB]|\(\?[=!<P]", pattern), pattern


def test_each_rule_is_sound() -> None:
    for path, schema, rule in RULES:
        where = f"{path}: {rule['message']}"
        cel.compile(rule["rule"])
        assert re.fullmatch(r"[^;\n]+; [^\n]+", rule["message"]), f"fault; fix: {where}"
        named = schema
        for name in rule.get("fieldPath", "").split(".")[1:]:
            assert name in named["properties"], where
            named = named["properties"][name]
        plain = re.sub(r"r'[^']*'", "", rule["rule"])
        assert "\\" not in plain, f"CEL reads a backslash as an escape, but in a raw text: {where}"


@pytest.mark.parametrize("words", ["at the most", "at the least", "What is", "is told", "so many"])
def test_texts_are_in_plain_english(words: str) -> None:
    described = {path: schema.get("description", "") for path, schema in NODES}
    assert [path for path, text in described.items() if words in text] == []
    assert [rule["message"] for *_, rule in RULES if words in rule["message"]] == []


def test_defaults_are_whole_so_that_both_sides_fill_in_the_same() -> None:
    assert SPEC["properties"]["resources"]["default"] == {"cpu": "1", "memory": "1Gi"}
    batch = SPEC["properties"]["batch"]["properties"]
    assert batch["timeZone"]["default"] == "Etc/UTC"
    assert "default" not in SPEC["properties"]["requirements"]
    assert batch["checks"]["default"] == {}
    assert all(None not in d.values() for _, n in NODES if isinstance(d := n.get("default"), dict))


def test_items_of_lists_have_no_defaults() -> None:
    """Or a second `kubectl apply` of the same file says "configured"."""
    assert [
        p for p, schema in NODES if "[]" in p and p.startswith("spec") and "default" in schema
    ] == []


def test_no_rule_reads_a_field_of_an_item_that_may_be_absent() -> None:
    """The API server fills in no defaults there, and its CEL fails on a field that is not there."""
    for path, schema in NODES:
        if "[]" not in path or not path.startswith("spec"):
            continue
        optional = set(schema.get("properties", ())) - set(schema.get("required", ()))
        for rule in schema.get(RULES_KEYWORD, ()):
            for name in optional:
                reads = re.search(rf"self\.{name}\b", rule["rule"].replace(f"has(self.{name})", ""))
                assert not reads or f"has(self.{name})" in rule["rule"], (path, name, rule["rule"])


def test_lists_with_names_merge_by_name() -> None:
    keyed = {
        path: schema["x-kubernetes-list-map-keys"]
        for path, schema in NODES
        if schema.get("x-kubernetes-list-type") == "map"
    }
    assert keyed == {
        "spec.batch.sink.table.columns": ["output"],
        "spec.batch.source.filter": ["column"],
        "spec.contract.inputs": ["name"],
        "spec.contract.outputs": ["name"],
        "spec.edge.features.defaults": ["name"],
        "spec.edge.targets": ["name"],
        "spec.pod.env": ["name"],
        "spec.pod.topologySpread": ["topologyKey"],
        "spec.quality.truth.filter": ["column"],
        "spec.realtime.features.defaults": ["name"],
        "status.bundles": ["target"],
        "status.conditions": ["type"],
        "status.quality.metrics": ["name"],
    }


def test_lists_merged_by_name_hold_each_name_once() -> None:
    """The API server refuses a name given twice in such a list; so does a rule."""
    for path, schema in NODES:
        if schema.get("x-kubernetes-list-type") != "map" or not path.startswith("spec"):
            continue
        parent, _, name = path.rpartition(".")
        (owner,) = (s for p, s in NODES if p == parent)
        assert any(
            "exists_one" in r["rule"] and f".{name}." in r["rule"] for r in owner[RULES_KEYWORD]
        )


def test_what_kubectl_get_shows() -> None:
    (version,) = crd.custom_resource_definition()["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    shown = [c["name"] for c in columns if not c.get("priority")]
    assert shown == ["Mode", "Ready", "Version", "Last Run", "Next Run", "Age"]
    assert version["subresources"] == {"status": {}}


def test_a_union_has_no_structural_schema() -> None:
    with pytest.raises(TypeError, match="union"):
        crd._structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})
    with pytest.raises(TypeError, match="cannot say"):
        crd._structural({"type": "object", "patternProperties": {}}, {})


def test_the_reference_shows_fields_defaults_and_rules() -> None:
    text = reference.render()
    assert "## spec.contract.inputs[]" in text
    assert "| **version** | string |  | Version of the model." in text
    assert "| keepRuns | whole number, 1 to 100 | `3` |" in text
    assert "`digest`: a remote model requires a digest" in text
