"""From a declared profile to a drift that is told: build, device, gateway, with real programs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fourways_agent import Device
from fourways_agent.records import RecordFile, tell
from fourways_agent.state import DeviceSettings, Store
from fourways_agent.update import update
from fourways_api import Contract, Route
from fourways_api.runtime_config import FleetDrift
from fourways_cli.embedded.ports import free_port
from fourways_runtime import bundle_layout as layout
from fourways_runtime.scoring.profile import make_profile
from fourways_runtime.scoring.single import RecordRefused
from fourways_runtime.workloads.gateway import device_reports
from tests.kit.edge_plane import key_pair
from tests.kit.edge_rig import Publisher
from tests.kit.gateway_plane import Running, running
from tests.kit.serving_plane import tensor
from tests.kit.waiting import until_async
from tools.kit.models import LINEAR

pytestmark = pytest.mark.embedded

ROUTE = Route(
    deployment="churn",
    mode="edge",
    version="v1",
    publish="pvc://out/bundles",
    drift=FleetDrift(window_seconds=3600, max_drift=0.2),
)


def people(seed: int, rows: int, older: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    ages, spends = random.integers(20, 70, rows) + older, random.uniform(0, 9, rows)
    return [
        {"age": int(age), "spend": float(spend), "rate": 1.0}
        for age, spend in zip(ages, spends, strict=True)
    ]


def profile() -> bytes:
    """Return that of the first version: the score is the age."""
    known = people(0, 2_000)
    inputs = {name: np.array([each[name] for each in known]) for name in known[0]}
    made = make_profile(Contract.model_validate(LINEAR), inputs, {"score": inputs["age"] * 1.0})
    return made.model_dump_json(exclude_none=True).encode()


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path)
    publish(made)
    return made


def publish(made: Publisher) -> str:
    data = made.root / "volumes" / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "profile.json").write_bytes(profile())
    return made.publish(1, monitoring={"profile": {"uri": "pvc://data/profile.json"}})


@pytest.fixture
async def plane(
    tmp_path: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setattr(device_reports, "JUDGED_SECONDS", 0.0)
    async with running(tmp_path, routes=(ROUTE,)) as plane:
        yield plane


def device(root: Path, plane: Running, name: str) -> tuple[Store, DeviceSettings]:
    key = root / "signing-key.pub.pem"
    key.write_bytes(key_pair()[1])
    store = Store(root / name)
    settings = DeviceSettings(plane.url, "churn", "door", str(key), report_drift="yes")
    store.prepare()
    store.remember(settings)
    return store, settings


async def drift(plane: Running) -> Any:
    status, told = await plane.get("/deployments/churn/drift")
    assert status == 200
    return told


def scored(store: Store, settings: DeviceSettings, records: list[dict[str, Any]]) -> None:
    """Update a device, and let a program of it score records."""
    update(store, settings)
    program = Device(store.folder)
    for record in records:
        program.predict(record)
    with pytest.raises(RecordRefused):
        program.predict({"age": None, "spend": 2, "rate": 1})
    program.close()


async def test_the_bundle_carries_the_profile_and_its_digest_is_stable(
    publisher: Publisher,
) -> None:
    before = publisher.digests()
    assert layout.PROFILE_FILE in before
    publish(publisher)
    assert publisher.digests()["manifest"] == before["manifest"]
    publisher.publish(1)
    assert layout.PROFILE_FILE not in publisher.digests()


@pytest.mark.parametrize(("older", "found"), [(0, []), (25, ["age", "score"])])
async def test_devices_that_score_tell_whether_their_records_drifted(
    plane: Running, tmp_path: Path, older: int, found: list[str]
) -> None:
    for number in range(3):
        store, settings = device(tmp_path, plane, f"device-{number}")
        await asyncio.to_thread(scored, store, settings, people(number + 1, 150, older))
        assert await asyncio.to_thread(tell, store, settings)
        assert await asyncio.to_thread(tell, store, settings), "again, and it counts once"
    told = await drift(plane)
    assert (told["devices"], told["drift"]["records"]) == (3, 450)
    names = {each["name"] for each in told["drift"]["fields"] if each["drifted"]}
    assert names == set(found)


async def test_a_device_without_its_owners_word_counts_nothing(
    plane: Running, tmp_path: Path
) -> None:
    store, settings = device(tmp_path, plane, "device")
    settings = replace(settings, report_drift="")
    store.remember(settings)
    await asyncio.to_thread(scored, store, settings, people(1, 60))
    assert not await asyncio.to_thread(tell, store, settings)
    assert not (store.folder / "records.json").exists()
    assert (await drift(plane))["devices"] == 0


async def until_told(plane: Running, holds: Callable[[Any], bool], what: str) -> None:
    async def so() -> bool:
        return holds(await drift(plane))

    await until_async(so, what, seconds=60)


async def test_the_commands_of_a_device_report_as_its_owner_says(
    plane: Running, tmp_path: Path
) -> None:
    """``run`` serves and reports; ``update --report-drift no`` ends it."""
    store, _ = device(tmp_path, plane, "device")
    port = free_port()
    agent = [sys.executable, "-m", "fourways_agent"]
    process = await asyncio.create_subprocess_exec(
        *(*agent, "run", "--state", str(store.folder), "--port", str(port), "--every", "1s"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as ask:

            async def ready() -> bool:
                try:
                    return (await ask.get("/v2/models/churn/ready")).status_code == 200
                except httpx.HTTPError:
                    return False

            await until_async(ready, "the agent serves", seconds=60)
            for record in people(7, 120):
                inputs = [
                    tensor("age", "INT32", [record["age"]]),
                    tensor("spend", "FP32", [record["spend"]]),
                    tensor("rate", "FP32", [record["rate"]]),
                ]
                answer = await ask.post("/v2/models/churn/infer", json={"inputs": inputs})
                assert answer.status_code == 200, answer.text
        await until_told(
            plane,
            lambda told: told["drift"] is not None and told["drift"]["records"] == 120,
            "all 120 records are told",
        )
    finally:
        process.terminate()
        await process.wait()
    done = await asyncio.to_thread(
        subprocess.run,
        [*agent, "update", "--state", str(store.folder), "--report-drift", "no"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"updated": false' in done.stdout
    assert not (store.folder / "records.json").exists()
    settings = store.settings()
    assert settings is not None
    assert settings.report_drift == ""


async def test_counts_of_a_short_program_are_sent_by_the_next_update(
    plane: Running, tmp_path: Path
) -> None:
    store, settings = device(tmp_path, plane, "device")
    await asyncio.to_thread(update, store, settings)
    lines = "".join(f'{{"age": {p["age"]}, "spend": 1, "rate": 1}}\n' for p in people(1, 70))
    agent = [sys.executable, "-m", "fourways_agent"]
    predict = [*agent, "predict", "--state", str(store.folder), "-"]
    await asyncio.to_thread(
        subprocess.run, predict, input=lines, capture_output=True, text=True, check=True
    )
    assert RecordFile(store).read().pending.records == 70
    await asyncio.to_thread(
        subprocess.run,
        [*agent, "update", "--state", str(store.folder)],
        capture_output=True,
        check=True,
    )
    assert (await drift(plane))["drift"]["records"] == 70
