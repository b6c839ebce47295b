"""The roles the chart adds for people: read with view, write with edit and admin, status never."""

from pathlib import Path

import yaml

from fourways_api import GROUP, PLURAL

TEMPLATE = Path(__file__).parents[2] / "charts/fourways/templates/user-roles.yaml"
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
WRITE = {"create", "update", "patch", "delete", "deletecollection"}


def _roles() -> list[dict]:
    """Return the template's roles, its directives left out."""
    lines = TEMPLATE.read_text().split("*/}}")[1].splitlines()
    plain = "\n".join(line for line in lines if not line.strip().startswith("{{")).replace(
        "{{", "x"
    )
    return [role for role in yaml.safe_load_all(plain.replace("}}", "x")) if role]


def _verbs(audience: str, resource: str) -> set[str]:
    return {
        verb
        for role in _roles()
        if role["metadata"]["labels"].get(AGGREGATE + audience) == "true"
        for rule in role["rules"]
        if GROUP in rule["apiGroups"] and resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_who_may_view_reads_and_who_may_edit_writes_the_spec() -> None:
    read = {"get", "list", "watch"}
    assert _verbs("view", PLURAL) == _verbs("view", f"{PLURAL}/status") == read
    for audience in ("edit", "admin"):
        assert _verbs(audience, PLURAL) == read | WRITE
        assert _verbs(audience, f"{PLURAL}/status") == read
