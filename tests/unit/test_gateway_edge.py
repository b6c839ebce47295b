"""Edge deployments: bundles read-only in ranges, extra data by key, nothing else of the folder."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from fourways_api import EntityKey, FeatureLookup, Route, SecretReference
from fourways_http import Request
from fourways_runtime.bundle_layout import MANIFEST, SIGSTORE, Descriptor, encode, index
from fourways_runtime.io.feature_store.cached import CachedFeatures
from fourways_runtime.workloads.gateway import fleet
from tests.kit.gateway_plane import Running, asking, running
from tests.kit.run_history import MemoryHistory
from tests.kit.secret_files import secret_folder

BLOB = Random(7).randbytes(3_000_000)
HEX = hashlib.sha256(BLOB).hexdigest()
INDEX = b'{"schemaVersion":2}'
PATH = f"/bundles/vad/door/blobs/sha256/{HEX}"


def publish(volumes: Path) -> Path:
    """Lay a bundle out on a claim, with things around it that are nobody's business."""
    folder = volumes / "models" / "edge" / "vad" / "door"
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / HEX).write_bytes(BLOB)
    (folder / "index.json").write_bytes(INDEX)
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (folder / "notes.txt").write_text("private")
    (blobs / ("c" * 64)).symlink_to("/etc/hostname")
    (folder.parent / "half").mkdir()
    (folder.parent / "Odd Name").mkdir()
    (folder.parent / "linked").symlink_to("/etc")
    return folder


def route(**change: object) -> Route:
    return Route.model_validate(
        {"deployment": "vad", "mode": "edge", "version": "5", "publish": "pvc://models/edge"}
        | change
    )


@asynccontextmanager
async def serving(folder: Path, *routes: Route) -> AsyncIterator[Running]:
    publish(folder / "volumes")
    async with running(folder, routes=routes or (route(),)) as plane:
        yield plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as plane:
        yield plane


async def test_a_bundle_is_listed_and_fetched(plane: Running) -> None:
    for path in ("/bundles/vad/", "/bundles/vad"):
        assert await plane.get(path) == (
            200,
            {
                "deployment": "vad",
                "version": "5",
                "targets": [{"target": "door", "links": {"index": "/bundles/vad/door/index.json"}}],
            },
        )
    index = await plane.client.get("/bundles/vad/door/index.json")
    assert (index.content, index.headers["cache-control"]) == (INDEX, "no-cache")
    assert index.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
    known = {"if-none-match": index.headers["etag"]}
    again = await plane.client.get("/bundles/vad/door/index.json", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert (await plane.client.get("/bundles/vad/door/oci-layout")).status_code == 200
    blob = await plane.client.get(PATH)
    assert (blob.status_code, blob.content) == (200, BLOB)
    assert "immutable" in blob.headers["cache-control"]
    assert blob.headers["etag"] == f'"sha256:{HEX}"'
    head = await plane.client.head(PATH)
    assert (head.headers["content-length"], head.content) == (str(len(BLOB)), b"")
    known = {"if-none-match": blob.headers["etag"]}
    assert (await plane.client.get(PATH, headers=known)).status_code == 304
    assert (await plane.client.get(PATH)).content == BLOB


async def test_devices_are_listed_by_what_they_asked_for(plane: Running, tmp_path: Path) -> None:
    status, told = await plane.get("/deployments/vad/devices")
    assert (status, told["devices"]) == (200, [])
    await plane.client.get("/bundles/vad/door/index.json")
    await plane.client.get(PATH)
    _, told = await plane.get("/deployments/vad/devices")
    (device,) = told["devices"]
    assert (device["offered"], device["fetched"]) == (None, None)  # the index names no manifest
    folder = tmp_path / "volumes" / "models" / "edge" / "vad" / "door"
    model = Descriptor(MANIFEST, f"sha256:{HEX}", 500)
    signature = Descriptor(MANIFEST, f"sha256:{'b' * 64}", 500)
    (folder / "index.json").write_bytes(encode(index(model, "5", {SIGSTORE: signature})))
    await plane.client.get("/bundles/vad/door/index.json")
    _, told = await plane.get("/deployments/vad/devices")
    assert told["devices"][0] | {"looked_at": ""} == {
        "target": "door",
        "caller": None,
        "looked_at": "",
        "offered": f"sha256:{HEX}",
        "fetched": None,
        "fetched_at": None,
        "reported_at": None,
    }
    await plane.client.get(PATH)
    _, told = await plane.get("/deployments/vad/devices")
    assert told["devices"][0]["fetched"] == f"sha256:{HEX}"
    assert (await plane.get("/deployments/churn/devices"))[0] == 404


def test_devices_seen_lately_and_their_updates_are_counted() -> None:
    registry, now = CollectorRegistry(), 0.0
    seen = fleet.Fleet(registry, lambda: now)
    where = {"deployment": "vad", "target": "door"}

    def counted(name: str) -> float | None:
        return registry.get_sample_value(name, where)

    model = Descriptor(MANIFEST, f"sha256:{HEX}", 500)
    signature = Descriptor(MANIFEST, f"sha256:{'b' * 64}", 500)
    offered = encode(index(model, "5", {SIGSTORE: signature}))
    assert counted("fourways_devices") is None
    for caller in ("a", "b"):
        request = Request(b"GET", b"/", [], b"")
        request.params, request.caller = {**where, "digest": HEX}, caller
        seen.looked(request, offered)
        seen.fetched(request)
        seen.fetched(request)  # the rest of the same release, after a lost connection
    assert counted("fourways_devices") == 2.0
    assert counted("fourways_device_updates_total") == 2.0
    now = fleet.RECENT_SECONDS - 1
    seen.looked(request, offered)
    now += 2
    assert counted("fourways_devices") == 1.0


async def test_the_page_shows_the_devices_seen(tmp_path: Path) -> None:
    publish(tmp_path / "volumes")
    people = {"Accept": "text/html"}
    async with running(tmp_path, routes=(route(),), history=MemoryHistory()) as plane:
        page = await plane.client.get("/deployments/vad", headers=people)
        assert "No device has looked for a bundle" in page.text
        await plane.client.get("/bundles/vad/door/index.json")
        page = await plane.client.get("/deployments/vad", headers=people)
        assert "without credentials" in page.text


def test_the_device_not_seen_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MOST", 2)
    seen = fleet.Fleet(CollectorRegistry(), lambda: 0.0)
    for caller in ("a", "b", "a", "c"):
        request = Request(b"GET", b"/", [], b"")
        request.params = {"deployment": "vad", "target": "door"}
        request.caller = caller
        seen.looked(request, INDEX)
    told = json.loads(seen.answer("vad").body)
    assert [device["caller"] for device in told["devices"]] == ["c", "a"]


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-", 1_000_000, len(BLOB)),
        ("bytes=5-70004", 5, 70_005),
        ("bytes=-7", len(BLOB) - 7, len(BLOB)),
        (f"bytes=10-{10**12}", 10, len(BLOB)),
        (f"bytes=-{10**12}", 0, len(BLOB)),
    ],
)
async def test_ranges(plane: Running, asked: str, start: int, end: int) -> None:
    got = await plane.client.get(PATH, headers={"range": asked})
    assert (got.status_code, got.content) == (206, BLOB[start:end])
    assert got.headers["content-range"] == f"bytes {start}-{end - 1}/{len(BLOB)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=9-3"])
async def test_ranges_that_are_none_get_the_whole(plane: Running, asked: str) -> None:
    assert (await plane.client.get(PATH, headers={"range": asked})).status_code == 200


async def test_ranges_beyond_and_of_another_version(plane: Running) -> None:
    for asked in (f"bytes={len(BLOB)}-", "bytes=-0"):
        got = await plane.client.get(PATH, headers={"range": asked})
        assert (got.status_code, got.headers["content-range"]) == (416, f"bytes */{len(BLOB)}")
    told = {"range": "bytes=5-", "if-range": '"sha256:other"'}
    assert (await plane.client.get(PATH, headers=told)).status_code == 200
    told["if-range"] = f'"sha256:{HEX}"'
    assert (await plane.client.get(PATH, headers=told)).status_code == 206


@pytest.mark.parametrize(
    "path",
    [
        "/bundles/vad/door/notes.txt",
        "/bundles/vad/door/blobs/sha256/" + "c" * 64,
        "/bundles/vad/door/blobs/sha256/" + "d" * 64,
        "/bundles/vad/door/blobs/sha256/..%2f..%2findex.json",
        "/bundles/vad/door/blobs/sha256/" + HEX.upper(),
        "/bundles/vad/door/blobs/md5/" + HEX,
        "/bundles/vad/%2e%2e/index.json",
        "/bundles/vad/..%2f..%2fvad%2fdoor/index.json",
        "/bundles/vad/linked/index.json",
        "/bundles/vad/half/index.json",
        "/bundles/vad/half/blobs/sha256/" + HEX,
        "/bundles/vad/door%00/index.json",
        "/bundles/%2e%2e/door/index.json",
        "/bundles/churn/",
    ],
)
async def test_nothing_else_is_served(plane: Running, path: str) -> None:
    got = await plane.client.get(path, headers={})
    assert got.status_code == 404, got.text
    assert "private" not in got.text
    assert "/volumes" not in got.text


async def test_a_folder_that_is_away_is_503_and_nothing_is_told(tmp_path: Path) -> None:
    missing = route(publish="pvc://gone/edge")
    refused = route(deployment="web", publish="s3://bucket/x")
    async with running(tmp_path, routes=(missing, refused), fetch={"schemes": ["pvc"]}) as plane:
        assert (await plane.get("/bundles/vad/"))[0] == 404
        status, told = await plane.get("/bundles/web/")
        assert (status, told["error"]) == (503, "the bundles cannot be read now")


async def test_predictions_are_the_devices(plane: Running) -> None:
    for status, told in (
        await plane.infer("vad", asking("c1")),
        await plane.get("/predictions/vad/c1"),
        await plane.get("/v2/models/vad"),
    ):
        assert status == 404
        assert "/bundles/vad/" in told["error"]
    _, index = await plane.get("/")
    vad = next(each for each in index["deployments"] if each["deployment"] == "vad")
    assert (vad["mode"], vad["links"]) == ("edge", {"bundles": "/bundles/vad/"})
    plane.store.down = True
    await plane.get("/predictions/churn/c1")
    status, told = await plane.get("/v2/health/ready")
    assert (status, told["ready"]) == (200, True)  # devices need no store


async def test_extra_data_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "features.db"
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TABLE rooms (room INTEGER PRIMARY KEY, size REAL, name TEXT, since)"
        )
        connection.execute(
            "INSERT INTO rooms VALUES (7, 12.5, 'hall', '2026-01-31'), (8, NULL, 'attic', NULL)"
        )
    connection.close()
    secret_folder(tmp_path / "secrets" / "rooms", uri=f"sqlite:///{database}")
    lookup = FeatureLookup(
        database=SecretReference(secret_name="rooms"),
        table="rooms",
        inputs=("size", "name"),
        timeout="2s",
    )
    key = EntityKey(name="room", type="int64")
    offered = route(features=lookup, entity_key=key)
    away = route(
        deployment="away",
        entity_key=key,
        features=lookup.model_copy(update={"database": SecretReference(secret_name="none")}),
    )
    kept = lookup.model_copy(update={"cache_ttl": "1h", "as_of": "since"})
    slow = route(deployment="kept", features=kept, entity_key=key)
    async with serving(tmp_path, offered, away, slow, route(deployment="bare")) as plane:
        _, told = await plane.get("/features/kept/7")
        assert (told["as_of"], told["features"]) == ("2026-01-31", {"size": 12.5, "name": "hall"})
        # What is used again is as old as it is.
        monkeypatch.setattr(CachedFeatures, "age", lambda self, key: 86_400.0)
        _, again = await plane.get("/features/kept/7")
        assert again["fetched_at"] < told["fetched_at"]
        status, told = await plane.get("/features/vad/7?inputs=name")
        assert (status, told["key"], told["features"]) == (200, 7, {"name": "hall"})
        assert told["fetched_at"].endswith("Z")
        _, told = await plane.get("/features/vad/8")
        assert told["features"] == {"size": None, "name": "attic"}
        assert (await plane.get("/features/vad/9"))[0] == 404
        assert (await plane.get("/features/bare/7"))[0] == 404
        status, told = await plane.get("/features/vad/7?inputs=name,owner")
        assert (status, told["field"]) == (400, "inputs")
        assert (await plane.get("/features/vad/seven"))[0] == 400
        status, told = await plane.get("/features/away/7")
        assert (status, told["error"]) == (503, "the feature database is not available")
        counted = 'fourways_gateway_faults_total{deployment="away",party="features"} 1.0'
        assert counted in (await plane.client.get("/metrics")).text
