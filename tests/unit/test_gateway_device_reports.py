"""Reports of devices at a real gateway: who may send which, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fourways_api import Route
from fourways_api.runtime_config import FleetDrift
from fourways_api.worker_faults import WorkerFaults
from fourways_runtime.workloads.gateway import device_reports
from tests.kit.callers import Keys, bearer
from tests.kit.device_reports import publish_profile, report
from tests.kit.drift_tables import DRIFTS, Table, profiler, table, training_profile
from tests.kit.gateway_plane import Running, running
from tests.kit.run_history import MemoryHistory

KNOWN = profiler()
PATH = "/bundles/vad/door/drift"
ROUTE = Route(
    deployment="vad",
    mode="edge",
    version="5",
    publish="pvc://models/edge",
    drift=FleetDrift(window_seconds=3600, max_drift=0.2),
)
UNCOMPARED = Route(deployment="bare", mode="edge", version="5", publish="pvc://models/edge")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_reports, "JUDGED_SECONDS", 0.0)
    monkeypatch.setattr(device_reports, "LOOK_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the bundle of a target is published."""
    made = tmp_path / "volumes" / "models" / "edge" / "vad" / "door"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def digest(folder: Path) -> str:
    return publish_profile(folder, training_profile())


@pytest.fixture
async def plane(tmp_path: Path, digest: str) -> AsyncIterator[Running]:
    async with running(tmp_path, routes=(ROUTE, UNCOMPARED), history=MemoryHistory()) as plane:
        yield plane


async def send(plane: Running, raw: bytes, path: str = PATH, key: str = "") -> httpx.Response:
    return await plane.client.post(path, content=raw, headers=bearer(key) if key else {})


def shifted(rows: int, seed: int = 1) -> Table:
    random = np.random.default_rng(seed)
    columns = table(random, rows)
    DRIFTS["a shift by one deviation"][1](columns, random)
    return columns


async def test_a_drift_of_devices_is_told_as_json_metrics_and_page(
    plane: Running, digest: str
) -> None:
    status, told = await plane.get("/deployments/vad/drift")
    assert (status, told) == (200, {"deployment": "vad", "devices": 0, "drift": None})
    for device in range(4):
        columns = shifted(100, device)
        raw = report(KNOWN, digest, columns, device=device, rejects=25)
        answer = await send(plane, raw)
        assert (answer.status_code, answer.json()) == (200, {"window_seconds": 3600})
        await send(plane, raw)
    status, told = await plane.get("/deployments/vad/drift")
    assert (status, told["devices"], told["drift"]["records"]) == (200, 4, 400)
    assert (told["drift"]["fields"][0]["name"], told["drift"]["drifted"]) == ("alcohol", 1)
    assert told["drift"]["rejects"] == 0.2
    # The operator reads it as it reads what a worker says.
    assert WorkerFaults.model_validate(told).drift is not None
    metrics = (await plane.client.get("/metrics")).text
    for line in (
        'fourways_drift_detected{deployment="vad",field="alcohol",side="input"} 1.0',
        'fourways_drift_detected{deployment="vad",field="price",side="input"} 0.0',
        'fourways_drift_records{deployment="vad"} 400.0',
        'fourways_drift_reject_share{deployment="vad"} 0.2',
    ):
        assert line in metrics
    page = await plane.client.get("/deployments/vad", headers={"Accept": "text/html"})
    assert "400 records of 4 devices against the training profile" in page.text


async def test_quiet_devices_give_no_alarm(plane: Running, digest: str) -> None:
    for device in range(4):
        columns = table(np.random.default_rng(device), 100)
        await send(plane, report(KNOWN, digest, columns, device=device))
    _, told = await plane.get("/deployments/vad/drift")
    assert (told["drift"]["records"], told["drift"]["drifted"]) == (400, 0)


async def test_a_report_is_shown_beside_the_device_seen(plane: Running, digest: str) -> None:
    await plane.client.get("/bundles/vad/door/index.json")
    _, told = await plane.get("/deployments/vad/devices")
    assert told["devices"][0]["reported_at"] is None
    await send(plane, report(KNOWN, digest, shifted(60)))
    _, told = await plane.get("/deployments/vad/devices")
    at = told["devices"][0]["reported_at"]
    page = await plane.client.get("/deployments/vad", headers={"Accept": "text/html"})
    assert f"<td>{at[:19].replace('T', ' ')} UTC</td></tr>" in page.text


async def test_where_nothing_is_compared_nothing_is_taken(plane: Running, digest: str) -> None:
    raw = report(KNOWN, digest, shifted(60))
    for path in ("/bundles/bare/door/drift", "/bundles/nobody/door/drift", "/bundles/vad/X/drift"):
        assert (await send(plane, raw, path)).status_code == 404, path
    assert (await plane.get("/deployments/bare/drift"))[0] == 404
    assert (await plane.get("/deployments/churn/drift"))[0] == 404


async def test_hostile_reports_are_refused_and_change_nothing(plane: Running, digest: str) -> None:
    good: dict[str, Any] = json.loads(report(KNOWN, digest, shifted(60)))
    bodies = [
        b"",
        b"{",
        b"[" * 100_000,
        b"x" * (2**19 + 1),
        json.dumps(good | {"records": 10**12}).encode(),
        json.dumps(good | {"inputs": [[-1]]}).encode(),
        json.dumps(good | {"device": "<script>"}).encode(),
    ]
    for body in bodies:
        answer = await send(plane, body)
        assert answer.status_code == 400, body[:80]
        assert b"<script>" not in answer.content
    _, told = await plane.get("/deployments/vad/drift")
    assert told["devices"] == 0


async def test_a_report_of_another_profile_is_not_added(
    plane: Running, folder: Path, digest: str
) -> None:
    other = "sha256:" + "b" * 64
    answer = await send(plane, report(KNOWN, other, shifted(60)))
    assert answer.status_code == 409
    await send(plane, report(KNOWN, digest, shifted(60)))
    assert (await plane.get("/deployments/vad/drift"))[1]["devices"] == 1
    # Another model is published, with another profile: what was counted by the old one is dropped.
    newer = publish_profile(folder, training_profile(seed=3))
    assert (await send(plane, report(profiler(3), newer, shifted(70)))).status_code == 200
    _, told = await plane.get("/deployments/vad/drift")
    assert (told["devices"], told["drift"]["records"]) == (1, 70)
    assert (await send(plane, report(KNOWN, digest, shifted(60)))).status_code == 409


async def test_a_bundle_whose_profile_is_missing_or_damaged(
    plane: Running, folder: Path, digest: str
) -> None:
    raw = report(KNOWN, digest, shifted(60))
    publish_profile(folder, None)
    assert (await send(plane, raw)).status_code == 409
    publish_profile(folder, training_profile())
    blob = folder / "blobs" / digest.replace(":", "/")
    blob.write_bytes(blob.read_bytes() + b" ")
    assert (await send(plane, raw)).status_code == 404
    nonsense = publish_profile(folder, b'{"version": 9}')
    answer = await send(plane, report(KNOWN, nonsense, shifted(60)))
    assert (answer.status_code, answer.json()["error"]) == (
        503,
        "the published profile cannot be read",
    )


async def test_a_device_needs_its_own_key(tmp_path: Path, digest: str) -> None:
    keys = Keys(tmp_path)
    door, reader = keys.add("door-1", "bundles:vad"), keys.add("reader", "read:*")
    callers = keys.policy("bundles:*", "read:*")
    raw = report(KNOWN, digest, shifted(60))
    async with running(tmp_path, routes=(ROUTE,), callers=callers) as plane:
        assert (await send(plane, raw)).status_code == 401, "who may fetch may not report"
        assert (await send(plane, raw, key=reader)).status_code == 403
        assert (await send(plane, raw, key="fwk_door-1_wrong")).status_code == 401
        assert (await send(plane, raw, key=door)).status_code == 200
        assert (await plane.get("/deployments/vad/drift"))[1]["devices"] == 1


async def test_a_gateway_that_was_restarted_knows_all_after_the_next_round(
    tmp_path: Path, digest: str
) -> None:
    raw = report(KNOWN, digest, shifted(200), sequence=7)
    for _ in range(2):
        async with running(tmp_path, routes=(ROUTE,)) as plane:
            assert (await plane.get("/deployments/vad/drift"))[1]["drift"] is None
            await send(plane, raw)
            assert (await plane.get("/deployments/vad/drift"))[1]["drift"]["records"] == 200
