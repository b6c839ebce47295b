"""The API server's verdict on every manifest is Python's.

Left to the operator, because no schema can say it (cases marked ``by: operator`` in
tests/bad_manifests/bad.yaml): a schedule whose range runs backwards or whose day never comes, an
unknown time zone, and a contract larger than a workload's environment holds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from kubernetes import client, config

from fourways_api import GROUP, PLURAL, VERSION, InvalidSpec, load_documents, parse
from tests.bad_manifests.cases import HERE, Case, bad, good
from tests.bad_manifests.generate import manifests
from tests.kit.waiting import until

pytestmark = pytest.mark.cluster

SEED = int(os.environ.get("FOURWAYS_SEED") or random.randrange(2**32))
MUTATIONS = int(os.environ.get("FOURWAYS_MUTATIONS") or 300)

VERDICTS = {400, 422}
"""Statuses that say something about the object, and not about the server."""

Create = Callable[[dict[str, Any]], str | dict[str, Any]]
"""Asks the server to create an object, without keeping it: its refusal, or the object."""


@pytest.fixture(scope="module")
def api(kubeconfig: Path, cluster: object) -> Iterator[client.CustomObjectsApi]:
    loaded = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=loaded)
    with client.ApiClient(loaded) as connection:
        yield client.CustomObjectsApi(connection)


@pytest.fixture(scope="module")
def create(api: client.CustomObjectsApi) -> Create:
    def ask(document: dict[str, Any]) -> str | dict[str, Any]:
        try:
            created: dict[str, Any] = api.create_namespaced_custom_object(
                GROUP,
                VERSION,
                "default",
                PLURAL,
                as_kubectl_sends(document),
                dry_run="All",
                field_validation="Strict",
            )
        except client.ApiException as refusal:
            if refusal.status not in VERDICTS:
                raise
            return str(json.loads(refusal.body)["message"])
        return created

    return ask


def as_kubectl_sends(value: Any) -> Any:
    """Write 3.0 as 3: rules read no 3.0 for a whole number, and kubectl never sends one."""
    match value:
        case dict():
            return {key: as_kubectl_sends(item) for key, item in value.items()}
        case list():
            return [as_kubectl_sends(item) for item in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return value


@pytest.mark.parametrize("document", good().values(), ids=lambda d: d["metadata"]["name"])
def test_a_good_manifest_is_accepted_and_gets_our_defaults(
    document: dict[str, Any], create: Create
) -> None:
    created = create(document)
    assert isinstance(created, dict), created
    # The server keeps a whole number of cores as it was written.
    created["spec"]["resources"]["cpu"] = str(created["spec"]["resources"]["cpu"])
    ours = parse(document).spec
    assert without_items(created["spec"]) == without_items(ours.to_json())
    assert parse(document | {"spec": created["spec"]}).spec == ours


def without_items(value: Any) -> Any:
    """Leave out objects in lists, whose defaults only Python fills in."""
    match value:
        case dict():
            return {k: without_items(v) for k, v in value.items()}
        case [dict(), *_]:
            return []
    return value


def test_a_second_apply_changes_nothing(
    api: client.CustomObjectsApi, namespace: str, kubeconfig: Path
) -> None:
    apply = ["kubectl", "--kubeconfig", str(kubeconfig), "-n", namespace, "apply", "-f"]
    apply.append(str(HERE / "good.yaml"))
    first = subprocess.run(apply, capture_output=True, text=True, check=True).stdout
    second = subprocess.run(apply, capture_output=True, text=True, check=True).stdout
    assert "created" in first
    assert {line.rpartition(" ")[2] for line in second.splitlines()} == {"unchanged"}


@pytest.mark.parametrize("case", [c for c in bad() if not c.stored], ids=lambda c: c.name)
def test_a_bad_manifest_gets_the_same_verdict(case: Case, create: Create) -> None:
    answer = create(case.document)
    if case.by == "operator":
        assert isinstance(answer, dict), answer
    else:
        assert isinstance(answer, str), "the server accepts it"
        assert case.server_says in answer


@pytest.mark.parametrize("case", [c for c in bad() if c.stored], ids=lambda c: c.name)
def test_a_bad_update_is_refused(case: Case, api: client.CustomObjectsApi, namespace: str) -> None:
    assert case.stored is not None
    stored = api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, case.stored)
    name, version = stored["metadata"]["name"], stored["metadata"]["resourceVersion"]
    update = case.document | {"metadata": {"name": name, "resourceVersion": version}}
    with pytest.raises(client.ApiException) as refusal:
        api.replace_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, name, update, dry_run="All"
        )
    assert case.server_says in json.loads(refusal.value.body)["message"]


def test_a_contract_too_large_to_carry_is_left_to_the_operator(create: Create) -> None:
    document = good()["smallest"]
    inputs = [{"name": f"x{i}", "type": "float32", "description": "x" * 500} for i in range(200)]
    document["spec"]["contract"]["inputs"] = inputs
    assert isinstance(create(document), dict)


def test_random_manifests_get_the_same_verdict(create: Create) -> None:
    print(f"FOURWAYS_SEED={SEED}")
    verdicts = {True: 0, False: 0}

    @seed(SEED)
    @settings(
        max_examples=MUTATIONS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(manifests())
    def same_verdict(document: dict[str, Any]) -> None:
        ours, theirs = refusal_of(document), create(document)
        verdicts[ours is None] += 1
        if ours is None:
            assert isinstance(theirs, dict), f"only the server refuses (seed {SEED}): {theirs}"
        else:
            assert isinstance(theirs, str), f"only Python refuses (seed {SEED}): {ours}"

    same_verdict()
    print(verdicts)
    assert min(verdicts.values()) >= MUTATIONS // 20, f"one-sided: {verdicts}"


def refusal_of(document: dict[str, Any]) -> str | None:
    try:
        parse(document)
    except InvalidSpec as refusal:
        return str(refusal)
    return None


ODD_YAML = """\
a: [1e-5, 1.0, 010, 0x1F, 1_000, 0b11, -0, +1, .5, 1., 1e3, 1.5e+3, 08, 09.5, 0o17]
b: [y, n, yes, No, ON, off, true, ~, null, "", 'y', "1", !!str 2]
c: [2024-01-01, 2024-01-01T10:00:00Z, 1:30, 10:20:30, 1.2.3, =, "=", v1, 1__0]
d: {1: one, 2.5: x, no: y}
e: &anchor {p: 1}
f: {<<: *anchor, q: 2}
g: |
  two
  lines
h: >-
  folded
  text
"""


def test_yaml_is_read_as_kubectl_reads_it(kubeconfig: Path, cluster: object) -> None:
    for text in (ODD_YAML, *(HERE / "good.yaml").read_text().split("\n---\n")):
        (ours,) = load_documents(text)
        assert json.loads(json.dumps(ours)) == _read_by_kubectl(text, kubeconfig), text


def _read_by_kubectl(text: str, kubeconfig: Path) -> Any:
    """Let kubectl put any YAML through its reader: as the data of something it creates nowhere."""
    if "apiVersion" not in text:
        body = (
            "apiVersion: fourways.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: a}\nspec:\n"
        )
        text = body + "".join(f"  {line}\n" for line in text.splitlines())
        return _kubectl(text, kubeconfig)["spec"]
    return _kubectl(text, kubeconfig)


def _kubectl(text: str, kubeconfig: Path) -> Any:
    run = subprocess.run(
        [
            "kubectl",
            "--kubeconfig",
            str(kubeconfig),
            "create",
            "--dry-run=client",
            "-o",
            "json",
            "--validate=false",
            "-f",
            "-",
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    created = json.loads(run.stdout)
    created["metadata"].pop("namespace", None)
    return created


def test_kubectl_explains_fields_and_lists_by_short_name(kubeconfig: Path, cluster: object) -> None:
    def kubectl(*arguments: str) -> str:
        command = ["kubectl", "--kubeconfig", str(kubeconfig), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    until(
        lambda: PLURAL in kubectl("get", "--raw", f"/openapi/v3/apis/{GROUP}/{VERSION}"),
        "the server publishes the docs",
        seconds=30,
        interval=0.5,
    )
    assert "Start no new runs" in kubectl("explain", "modeldeployment.spec.batch.suspend")
    assert "mdep" in kubectl("api-resources", "--categories=fourways")
