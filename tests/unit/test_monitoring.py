"""Alert rules, dashboards and the reference of metrics name metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fourways_runtime.process import new_registry
from tests.kit.serving_plane import configure
from tests.kit.yaml_files import load_yaml
from tools.dashboards import DASHBOARDS, rendered
from tools.installation import ROOT
from tools.kit.models import LINEAR, linear
from tools.metrics_reference import Metric, metrics

ALERTS = ROOT / "charts" / "fourways" / "files" / "alerts.yaml"
OF_TARGETS = {"namespace", "pod", "le", "job", "instance"}
"""Labels that Prometheus adds to what it scrapes, and that of histograms."""


@cache
def known() -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics()}


def rules() -> list[dict[str, str]]:
    groups = load_yaml(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for name, (_, panels) in DASHBOARDS.items():
        for panel in panels:
            for query, _ in panel.queries:
                yield f"{name}: {panel.title}", query


def named(query: str) -> list[Metric]:
    found = []
    for name in re.findall(r"fourways_[a-z_]+", query):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = known().get(name) or known().get(base)
        assert metric is not None, f"nothing makes {name}"
        assert name in known() or metric.kind == "histogram", f"{base} is no histogram"
        found.append(metric)
    return found


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda text: text[:40])
def test_a_query_names_metrics_and_labels_that_exist(where: str, query: str) -> None:
    found = named(query)
    assert found, "a query is about metrics of ours"
    labels = {label for metric in found for label in metric.labels} | OF_TARGETS
    if any(metric.name.startswith("fourways_drift_") for metric in found):
        labels.add("deployment")  # that of devices, of gateways
    asked = re.findall(r"by \(([a-z_, ]+)\)", query) + re.findall(r"[{,] ?([a-z_]+)=~?\"", query)
    names = {name.strip() for each in asked for name in each.split(",")}
    assert names <= labels, f"{where}: {names - labels}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "action"}
    labels = {label for metric in named(str(rule["expr"])) for label in metric.labels} | OF_TARGETS
    told = re.findall(r"\$labels\.([a-z_]+)", json.dumps(rule["annotations"]))
    assert set(told) <= labels


def test_every_metric_has_a_meaning_and_a_place_in_the_vocabulary() -> None:
    assert len(known()) > 50
    for metric in known().values():
        assert metric.meaning.endswith("."), metric.name
        assert not metric.name.endswith(("_ms", "_milliseconds")), "seconds are the unit"
        assert not metric.name.startswith("fourways_fourways")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_no_two_panels_at_one_place(name: str) -> None:
    board = json.loads(rendered(name))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places)
    assert board["uid"] == f"fourways-{name}"


def test_what_the_page_on_monitoring_names_exists() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    # A comma begins the rest of a name: `fourways_drift_psi`, `_ks`.
    asked = re.findall(r"`(fourways_[a-z_]+)(?:\{([a-z_]+)\})?`", page)
    assert len(asked) > 20
    for name, label in asked:
        (metric,) = named(name)
        assert not label or label in metric.labels, name


def test_a_worker_tells_which_model_it_serves(tmp_path: Path) -> None:
    config = configure(tmp_path, linear(), LINEAR)
    (sample,) = (
        sample
        for metric in new_registry(config).collect()
        for sample in metric.samples
        if sample.name == "fourways_model_info"
    )
    assert (sample.value, sample.labels["deployment"]) == (1.0, config.name)
    assert sample.labels["version"] == config.model.version
    assert sample.labels["format"] == "onnx"
