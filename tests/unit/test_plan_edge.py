"""The build Job of an edge deployment: what makes it another build, and what does not."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

from fourways_api import parse
from fourways_api.runtime_config import (
    CONFIG_VARIABLE,
    SECRETS_ROOT,
    VOLUMES_ROOT,
    FleetDrift,
)
from fourways_operator import planning
from fourways_operator.plan.edge import job_name, route
from tests.bad_manifests.cases import change, good
from tests.kit.planned import SETTINGS, containers, planned


def manifest(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(good()["edge"])
    document["metadata"] |= {"uid": "u", "generation": 1}
    for path, value in changes.items():
        change(document, path.replace("__", "."), value)
    return document


def test_text_for_people_is_no_reason_to_build_again() -> None:
    before = planned(parse(manifest()))
    document = manifest(spec__edge__description="For phones")
    document["spec"]["contract"]["inputs"][0]["description"] = "What the camera sees"
    document["spec"]["contract"]["outputs"][0]["description"] = "What it is"
    assert planned(parse(document)) == before


def test_the_cluster_of_the_installation_goes_into_the_build() -> None:
    deployment = parse(manifest())
    named = replace(SETTINGS, cluster_name="berlin-1")
    assert job_name(deployment, named) != job_name(deployment, SETTINGS)
    told, same = (
        json.loads(variable["value"])
        for container in containers(planning.plan(deployment, named))
        for variable in container["env"]
        if variable["name"] == CONFIG_VARIABLE
    )
    assert told["cluster"] == "berlin-1"
    assert same == told


def test_without_a_name_the_build_is_told_none() -> None:
    both = containers(planned(parse(manifest())))
    assert [container["name"] for container in both] == ["build", "edge"]
    for container in both:
        assert all("cluster" not in str(variable["value"]) for variable in container["env"])


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def test_the_key_is_where_no_model_is_parsed() -> None:
    document = manifest(
        spec__model__uri="pvc://models/m.onnx",
        spec__model__credentials={"secretName": "models"},
        spec__edge__publish="pvc://bundles/all",
        spec__edge__credentials={"secretName": "bundles"},
        spec__edge__signing={"secretName": "key"},
    )
    build, sign = containers(planned(parse(document)))
    secrets, claims = SECRETS_ROOT, VOLUMES_ROOT
    assert (build["args"], sign["args"]) == (["edge-build"], ["edge-sign"])
    at = mounts(build)
    assert {path for path in at if path.startswith(secrets)} == {
        f"{secrets}/bundles",
        f"{secrets}/models",
    }
    # Only who signs writes what devices read.
    assert all(at[f"{claims}/{claim}"]["readOnly"] for claim in ("models", "bundles"))
    at = mounts(sign)
    unsigned = at.pop("/var/cache/fourways/unsigned")
    assert (unsigned["readOnly"], unsigned["subPath"]) == (True, "unsigned")
    assert at.keys() == {f"{secrets}/key", f"{secrets}/bundles", f"{claims}/bundles", "/tmp"}
    assert "readOnly" not in at[f"{claims}/bundles"]
    assert at["/tmp"]["name"] != mounts(build)["/tmp"]["name"]


def test_what_signs_has_the_admin_s_image_and_what_parses_the_model_has_not() -> None:
    settings = replace(SETTINGS, signing_image="registry.example/signer:1")
    build, sign = containers(planning.plan(parse(manifest()), settings))
    assert build["image"] == SETTINGS.runtime_image
    assert sign["image"] == "registry.example/signer:1"


def test_an_error_that_no_retry_fixes_ends_the_job_in_either_container() -> None:
    (job,) = (o for o in planned(parse(manifest())) if o["kind"] == "Job")
    rules = job["spec"]["podFailurePolicy"]["rules"]
    ends = [rule["onExitCodes"]["containerName"] for rule in rules if rule["action"] == "FailJob"]
    assert ends == ["build", "edge"]


PROFILE = {"uri": "pvc://models/profile.json"}


def test_the_profile_goes_into_the_bundle_and_how_it_is_compared_to_the_gateway() -> None:
    compared = manifest(spec__monitoring={"profile": PROFILE, "window": "2h", "maxDrift": 0.5})
    found = route(parse(compared), None)
    assert found is not None
    assert found.drift == FleetDrift(window_seconds=7200, max_drift=0.5)
    unwatched = route(parse(manifest()), None)
    assert unwatched is not None
    assert unwatched.drift is None
    otherwise = manifest(spec__monitoring={"profile": PROFILE, "window": "3h", "maxDrift": 0.1})
    names = [job_name(parse(each), SETTINGS) for each in (compared, otherwise, manifest())]
    assert names[0] == names[1] != names[2], "only another profile is another build"
