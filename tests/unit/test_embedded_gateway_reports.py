"""The embedded host hears what devices told its gateway, and its status says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fourways_api import Route, parse
from fourways_api.runtime_config import FleetDrift
from fourways_cli.embedded.gateway_reports import LocalReports
from fourways_cli.embedded.managed import GatewayReport, Key
from tests.kit.device_reports import publish_profile, report
from tests.kit.drift_tables import DRIFTS, profiler, table, training_profile
from tests.kit.gateway_plane import running
from tests.kit.mode_facts import deployment
from tests.kit.waiting import until_async

KEY = ("demo", "m")
ROUTE = Route(
    deployment="m",
    mode="edge",
    version="1",
    publish="pvc://models/bundles",
    drift=FleetDrift(window_seconds=60, max_drift=0.2),
)


def edge(**spec: Any) -> Any:
    return parse(deployment("edge", **spec))


async def test_the_host_hears_of_drift_on_devices_where_it_is_declared(tmp_path: Path) -> None:
    folder = tmp_path / "volumes" / "models" / "bundles" / "m" / "till"
    digest = publish_profile(folder, training_profile())
    columns = table(random := np.random.default_rng(1), 200)
    DRIFTS["a shift by one deviation"][1](columns, random)
    heard: dict[Key, GatewayReport] = {}
    reports = LocalReports(None, heard.__setitem__)
    monitoring = {"profile": {"uri": "pvc://models/profile.json"}}
    async with running(tmp_path, routes=(ROUTE,)) as plane:
        raw = report(profiler(), digest, columns)
        assert (await plane.client.post("/bundles/m/till/drift", content=raw)).is_success
        reports.follow(("demo", "plain"), edge(), plane.url)
        reports.follow(KEY, edge(monitoring=monitoring), plane.url)

        async def told() -> bool:
            found = heard.get(KEY)
            return found is not None and found.drift is not None

        await until_async(told, "the host hears of the drift")
        drift = heard[KEY].drift
        assert drift is not None
        assert (drift.drifted, drift.fields[0].name, drift.records) == (1, "alcohol", 200)
        assert heard.keys() == {KEY}
        reports.follow(KEY, None, plane.url)
        reports.stop()
