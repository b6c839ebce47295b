"""Is an apply needed? Wanted, found and what the server recorded as ours go in, a verdict out."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from fourways_operator.difference import difference
from fourways_operator.facts import Json

WANTED: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "namespace": "n", "labels": {"a": "1"}},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "1"}},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "c",
                        "args": ["x", "y"],
                        "env": [
                            {"name": "V", "value": "1.0"},
                            {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "x.y"}}},
                        ],
                        "resources": {"limits": {"cpu": "500m", "memory": "1024Mi"}},
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}}],
            }
        },
    },
}

OWNED: Json = {
    "f:metadata": {"f:labels": {"f:a": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"c"}': {
                        ".": {},
                        "f:name": {},
                        "f:args": {},
                        "f:env": {
                            'k:{"name":"V"}': {".": {}, "f:name": {}, "f:value": {}},
                            'k:{"name":"F"}': {
                                ".": {},
                                "f:name": {},
                                "f:valueFrom": {"f:fieldRef": {}},
                            },
                        },
                        "f:resources": {"f:limits": {"f:cpu": {}, "f:memory": {}}},
                        "f:ports": {
                            'k:{"containerPort":80,"protocol":"TCP"}': {
                                ".": {},
                                "f:containerPort": {},
                                "f:protocol": {},
                            }
                        },
                    }
                },
                "f:volumes": {
                    'k:{"name":"tmp"}': {".": {}, "f:name": {}, "f:emptyDir": {"f:sizeLimit": {}}}
                },
            }
        },
    },
}

POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)


def _live() -> Json:
    """Return the object as the server stores it: defaults beside, quantities in its own form."""
    live = deepcopy(WANTED)
    live["metadata"] |= {"uid": "u", "managedFields": [_entry(OWNED)]}
    live["spec"]["revisionHistoryLimit"] = 10
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["resources"]["limits"] = {"cpu": "0.5", "memory": "1Gi"}
    container["env"][1]["valueFrom"]["fieldRef"]["apiVersion"] = "v1"
    live["spec"]["template"]["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = "1Gi"
    return live


def _entry(fields: Json, **more: Any) -> Json:
    entry = {"manager": "us", "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": fields}
    return {**deepcopy(entry), **more}


def _at(obj: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        obj = obj[step]
    return obj


def _path(wanted: Json, live: Json) -> str | None:
    found = difference(wanted, live, "us")
    return found.path if found else None


def test_defaults_and_other_forms_of_an_amount_are_no_difference() -> None:
    assert difference(WANTED, _live(), "us") is None


@pytest.mark.parametrize(
    ("path", "value", "blamed"),
    [
        (("spec", "replicas"), 1, "spec.replicas"),
        (("spec", "replicas"), False, "spec.replicas"),
        (("metadata", "labels", "a"), "2", "metadata.labels.a"),
        ((*CONTAINER, "args"), ["x"], "args"),
        ((*CONTAINER, "args"), ["y", "x"], "args[0]"),
        ((*CONTAINER, "env", 0, "value"), "1", 'env[{"name":"V"}].value'),
        ((*CONTAINER, "resources", "limits", "cpu"), "501m", "limits.cpu"),
        (("spec", "selector", "matchLabels"), {"a": "1", "b": "2"}, "selector.matchLabels.b"),
        ((*POD, "containers"), [], "containers"),
    ],
)
def test_a_field_somebody_changed_is_named(path: tuple[Any, ...], value: Any, blamed: str) -> None:
    live = _live()
    _at(live, path[:-1])[path[-1]] = value
    assert blamed in str(_path(WANTED, live))


def test_a_difference_tells_both_values() -> None:
    live = _live()
    live["spec"]["replicas"] = 3
    assert str(difference(WANTED, live, "us")) == "spec.replicas: wanted 0, found 3"


@pytest.mark.parametrize(
    ("path", "blamed"),
    [
        (("metadata", "labels", "a"), "metadata.labels.a"),
        ((*CONTAINER, "args"), "args"),
        ((*CONTAINER, "env", 0), 'env[{"name":"V"}]'),
        ((*POD, "volumes", 0), 'volumes[{"name":"tmp"}]'),
        ((*CONTAINER, "resources"), "resources"),
    ],
)
def test_what_is_no_longer_wanted_is_named(path: tuple[Any, ...], blamed: str) -> None:
    wanted = deepcopy(WANTED)
    del _at(wanted, path[:-1])[path[-1]]
    assert blamed in str(_path(wanted, _live()))


def test_a_key_left_over_in_a_value_owned_whole_is_named() -> None:
    live = _live()
    wanted = deepcopy(WANTED)
    live["spec"]["selector"]["matchExpressions"] = [{"key": "b", "operator": "Exists"}]
    assert _path(wanted, live) == "spec.selector.matchExpressions"


def test_what_others_add_beside_is_theirs() -> None:
    live = _live()
    pod = live["spec"]["template"]["spec"]
    pod["containers"].insert(0, {"name": "sidecar", "image": "x"})
    pod["volumes"].append({"name": "token"})
    live["metadata"]["labels"]["theirs"] = "1"
    live["metadata"]["annotations"] = {"theirs": "1"}
    assert difference(WANTED, live, "us") is None


def test_equal_but_not_ours_is_a_difference() -> None:
    live = _live()
    del live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"]
    assert _path(WANTED, live) == "spec.replicas"


@pytest.mark.parametrize(
    "entry",
    [
        None,
        _entry(OWNED, operation="Update"),
        _entry(OWNED, manager="them"),
        _entry(OWNED, apiVersion="apps/v1beta1"),
        _entry(OWNED, subresource="status"),
    ],
)
def test_what_we_never_applied_is_a_difference(entry: Json | None) -> None:
    live = _live()
    live["metadata"]["managedFields"] = [entry] if entry else []
    assert _path(WANTED, live) == "metadata.managedFields"


def test_a_subresource_is_compared_by_its_own_record() -> None:
    wanted = {"apiVersion": "apps/v1", "status": {"ready": "True"}}
    live = {
        **_live(),
        "status": {"ready": "True"},
    }
    live["metadata"]["managedFields"].append(
        _entry({"f:status": {"f:ready": {}}}, subresource="status")
    )
    assert difference(wanted, live, "us", "status") is None
    live["status"]["ready"] = "False"
    found = difference(wanted, live, "us", "status")
    assert found is not None
    assert found.path == "status.ready"


def test_sets_are_compared_without_order() -> None:
    wanted = {"apiVersion": "v1", "spec": {"values": [1, 2]}}
    live = {
        "metadata": {
            "managedFields": [
                _entry({"f:spec": {"f:values": {"v:1": {}, "v:2": {}}}}, apiVersion="v1")
            ]
        },
        "spec": {"values": [3, 2, 1]},
    }
    assert difference(wanted, live, "us") is None
    live["spec"]["values"] = [3, 2]
    assert _path(wanted, live) == "spec.values"
    assert _path({"apiVersion": "v1", "spec": {"values": [2]}}, {**live}) is None
    live["spec"]["values"] = [1, 2]
    assert _path({"apiVersion": "v1", "spec": {"values": [2]}}, live) == "spec.values"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1000m", True),
        ("1.5", "1500m", True),
        ("1Gi", "1024Mi", True),
        ("1G", "1Gi", False),
        ("1e3", "1k", True),
        ("100m", "0.1", True),
        ("1", "one", False),
        ("1Ki", "1024", True),
        (1, "1", True),
    ],
)
def test_amounts_are_compared_by_value(one: Any, other: str, same: bool) -> None:
    fields = {"f:limits": {"f:memory": {}}}
    live = {
        "limits": {"memory": other},
        "metadata": {"managedFields": [_entry(fields, apiVersion="v1")]},
    }
    wanted = {"apiVersion": "v1", "limits": {"memory": one}}
    assert (difference(wanted, live, "us") is None) is same


def test_text_that_looks_like_an_amount_is_text() -> None:
    live = _live()
    wanted = deepcopy(WANTED)
    _at(wanted, CONTAINER)["env"][0]["value"] = "1"
    assert 'env[{"name":"V"}].value' in str(_path(wanted, live))
