"""The build Job of an edge deployment: what makes it another build, and what does not."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

from fourways_api import parse
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_operator import planning
from fourways_operator.plan.edge import job_name
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
    (told,) = (
        json.loads(variable["value"])
        for container in containers(planning.plan(deployment, named))
        for variable in container["env"]
        if variable["name"] == CONFIG_VARIABLE
    )
    assert told["cluster"] == "berlin-1"


def test_without_a_name_the_build_is_told_none() -> None:
    (container,) = containers(planned(parse(manifest())))
    assert all("cluster" not in str(variable["value"]) for variable in container["env"])
