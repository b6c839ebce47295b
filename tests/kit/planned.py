"""All objects that are planned for a manifest, and the containers in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fourways_api import ModelDeployment
from fourways_operator.facts import Json, OperatorSettings
from fourways_operator.planning import plan, plan_runs

SETTINGS = OperatorSettings(runtime_image="fourways-runtime:test")


def planned(deployment: ModelDeployment) -> list[Json]:
    """Return the objects of a deployment and of a run of it."""
    standing = plan(deployment, SETTINGS)
    templates = [o["spec"]["jobTemplate"] for o in standing if o["kind"] == "CronJob"]
    runs = [{"metadata": {"name": "a-run"}, "spec": template["spec"]} for template in templates]
    return [*standing, *plan_runs(deployment, SETTINGS, None, runs)]


def containers(value: Any) -> Iterator[Json]:
    """Yield the containers of planned objects."""
    match value:
        case {"env": [*_]}:
            yield value
        case dict():
            for item in value.values():
                yield from containers(item)
        case list() | tuple():
            for item in value:
                yield from containers(item)
