"""Manifests as commands read them: paths beside the file, names given twice, namespaces."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from fourways_api.addresses import URI_PATTERN
from fourways_api.deployment import ModelDeployment
from fourways_cli.main import app
from fourways_cli.manifests import URI_FIELDS, read_deployments, read_manifests
from tests.kit.cli import CliRunner

CHURN = Path(__file__).parents[2] / "examples" / "churn.yaml"


def document(**model: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CHURN.read_text())
    loaded["spec"]["model"] = {"version": "1", "uri": "model.onnx", **model}
    loaded["spec"]["batch"]["source"] = {"uri": "file:///data/t.parquet"}
    return loaded


def written(path: Path, *documents: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(documents))
    return path


def fourways(*args: object, stdin: str = "") -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], input=stdin)


# ---------------------------------------------------------------- paths


def uri_fields(schema: dict[str, Any]) -> set[str]:
    """Return the fields whose pattern is a URI's, from the schema of the type."""
    found = set()

    def walk(node: Any, path: str) -> None:
        if "$ref" in node:
            return walk(schema["$defs"][node["$ref"].rpartition("/")[2]], path)
        if node.get("pattern") == URI_PATTERN:
            found.add(path.lstrip("."))
        for name, child in node.get("properties", {}).items():
            walk(child, f"{path}.{name}")
        for child in (*node.get("anyOf", ()), *filter(None, [node.get("items")])):
            walk(child, path)
        return None

    walk(schema, "")
    return found


def test_every_uri_of_a_deployment_may_be_a_path() -> None:
    assert uri_fields(ModelDeployment.model_json_schema(by_alias=True)) == set(URI_FIELDS)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("model.onnx", "here/model.onnx"),
        ("./a model.onnx", "here/a%20model.onnx"),
        ("../models/m.onnx", "models/m.onnx"),
        ("tables/", "here/tables/"),
    ],
)
def test_a_path_is_relative_to_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, path: str
) -> None:
    file = written(tmp_path / "here" / "m.yaml", document(uri=uri))
    for cwd, name in ((tmp_path, "here/m.yaml"), (tmp_path / "here", "m.yaml"), ("/", file)):
        monkeypatch.chdir(cwd)
        (deployment,) = read_deployments([Path(name)])
        assert deployment.spec.model.uri == f"file://{tmp_path.resolve()}/{path}"


def test_an_absolute_path_needs_no_scheme_either(tmp_path: Path) -> None:
    (deployment,) = read_deployments([written(tmp_path / "m.yaml", document(uri="/a/m.onnx"))])
    assert deployment.spec.model.uri == "file:///a/m.onnx"


def test_standard_input_has_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = fourways("validate", "-", stdin=json.dumps(document()))
    assert done.exit_code == 0, done.output
    assert "spec.model.uri: relative to this file, for `fourways up` only" in done.stderr


@pytest.mark.parametrize("uri", ["s3://b/m.onnx", "pvc://c/m.onnx", "file:///a/m.onnx"])
def test_uris_stay_as_they_are(tmp_path: Path, uri: str) -> None:
    file = written(tmp_path / "m.yaml", document(uri=uri, digest="sha256:" + "0" * 64))
    (manifest,) = read_manifests([file]).valid
    assert manifest.deployment is not None
    assert manifest.deployment.spec.model.uri == uri
    assert manifest.relative == ()


@pytest.mark.parametrize("uri", ["file:model.onnx", "htp://a/b", "C:/m.onnx"])
def test_an_unknown_scheme_is_no_path(tmp_path: Path, uri: str) -> None:
    done = fourways("validate", written(tmp_path / "m.yaml", document(uri=uri)))
    assert done.exit_code == 2
    assert "spec.model.uri" in done.stderr
    assert "has the wrong form" in done.stderr


@pytest.mark.parametrize("command", ["validate", "up", "plan", "explain"])
def test_a_file_uri_with_two_slashes_is_refused_with_the_fix(tmp_path: Path, command: str) -> None:
    done = fourways(command, written(tmp_path / "m.yaml", document(uri="file://m.onnx")))
    assert done.exit_code == 2
    assert done.stderr.count("spec.model.uri") == 1, done.stderr
    assert "file:///" in done.stderr


def test_localhost_is_this_machine(tmp_path: Path) -> None:
    file = written(tmp_path / "m.yaml", document(uri="file://localhost/m.onnx"))
    assert fourways("validate", file).exit_code == 0


def test_a_cluster_cannot_read_a_path_of_this_machine(tmp_path: Path) -> None:
    file = written(tmp_path / "m.yaml", document())
    assert fourways("validate", file).exit_code == 0
    done = fourways("plan", file)
    assert done.exit_code == 2
    assert "spec.model.uri: 'model.onnx' is a path of this machine" in done.stderr
    assert "pvc://CLAIM/" in done.stderr


# ---------------------------------------------------------------- names and namespaces


@pytest.mark.parametrize("command", ["validate", "up", "plan"])
def test_a_name_given_twice_is_refused_with_both_places(tmp_path: Path, command: str) -> None:
    one = written(tmp_path / "one.yaml", document(uri="file:///m"))
    two = written(tmp_path / "two.yaml", document(uri="file:///m"))
    done = fourways(command, one, two)
    assert done.exit_code == 2
    (line,) = [x for x in done.stderr.splitlines() if "given twice" in x]
    assert "two.yaml" in line.partition("metadata.name")[0]
    assert "one.yaml" in line.partition("metadata.name")[2]
    both = written(tmp_path / "both.yaml", document(uri="file:///m"), document(uri="file:///m"))
    assert "given twice" in fourways(command, both).stderr


def test_one_name_in_two_namespaces_is_two_deployments(tmp_path: Path) -> None:
    other = document(uri="file:///m")
    other["metadata"]["namespace"] = "team"
    file = written(tmp_path / "m.yaml", document(uri="file:///m"), other)
    assert {d.key[0] for d in read_deployments([file])} == {"default", "team"}
    assert fourways("validate", file).exit_code == 0


def test_n_gives_a_namespace_to_manifests_that_name_none(tmp_path: Path) -> None:
    file = written(tmp_path / "m.yaml", document(uri="file:///m"))
    objects = list(yaml.safe_load_all(fourways("plan", file, "-n", "team").stdout))
    assert {o["metadata"]["namespace"] for o in objects} == {"team"}
    named = document(uri="file:///m")
    named["metadata"]["namespace"] = "other"
    done = fourways("plan", written(file, named), "-n", "team")
    assert done.exit_code == 2
    assert "metadata.namespace: 'other' is not the namespace given with -n" in done.stderr


# ---------------------------------------------------------------- output


@pytest.mark.parametrize("command", ["validate", "explain"])
def test_findings_as_json_and_as_yaml(tmp_path: Path, command: str) -> None:
    file = written(tmp_path / "m.yaml", document(uri="file://m.onnx"))
    as_json = fourways(command, file, "-o", "json")
    as_yaml = fourways(command, file, "-o", "yaml")
    assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout)
    refused = fourways(command, file, "-o", "xml")
    assert refused.exit_code == 2
    assert "xml" in refused.output


def test_messages_about_a_manifest_steer_no_terminal(tmp_path: Path) -> None:
    file = written(tmp_path / "m.yaml", document(uri="s3://[/x] \x1b[31m\u202e"))
    (tmp_path / "[bold]").mkdir()
    os.rename(file, tmp_path / "[bold]" / "m.yaml")
    done = fourways("explain", tmp_path / "[bold]" / "m.yaml")
    assert "[bold]/m.yaml" in done.output
    assert not {"\x1b", "\u202e"} & set(done.output)
