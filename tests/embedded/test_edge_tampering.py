"""Whatever a gateway sends instead of the bundle, a device refuses it and its old model answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fourways_agent import AgentError, Device
from fourways_agent.check import boot
from fourways_agent.errors import BundleRefused, NoModel
from fourways_agent.state import DeviceSettings, Store
from fourways_agent.update import update
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor
from fourways_runtime.workloads.edge.signing import FileKey
from tests.kit.edge_rig import RECORD, Gateway, Publisher, cut_off, device, gateway_of

pytestmark = pytest.mark.embedded


@dataclass
class Scene:
    """A device with version 1, a gateway that has version 2, and what it says instead."""

    publisher: Publisher
    gateway: Gateway
    store: Store
    settings: DeviceSettings
    root: Path

    def raw(self, name: str) -> bytes:
        return self.publisher.blob(self.publisher.digests()[name]).read_bytes()

    @property
    def release(self) -> layout.Release:
        return layout.read_release(self.raw("release"))

    def lie(self, name: str, answer: Any) -> None:
        """Answer for a published blob otherwise; its digest stays what it was."""
        self.gateway.lies[layout.blob_name(self.publisher.digests()[name])] = answer

    def offer(self, raw: bytes) -> str:
        """Have a blob of its own right digest; return that."""
        digest = layout.digest_of(raw)
        self.gateway.lies[layout.blob_name(digest)] = raw
        return digest

    def index(self, change: Callable[[list[dict[str, Any]]], None]) -> None:
        told = self.publisher.index()
        change(told["manifests"])
        self.gateway.lies[layout.INDEX_FILE] = json.dumps(told).encode()

    def replace(self, manifest: bytes, key: bytes | None = None) -> None:
        """Offer another manifest, with digests that all fit; signed by ``key``, or as it was."""
        model = Descriptor.of(layout.MANIFEST, manifest)
        release = layout.Release("churn", "door", model.digest, 10**12, "shop")
        told = layout.encode(release.to_json())
        signature = self.raw("signature")
        if key is not None:
            signature = self._signed(manifest, told, key)
        about = layout.referrer(
            layout.SIGSTORE,
            model,
            Descriptor.of(layout.SIGSTORE, signature),
            Descriptor.of(layout.RELEASE, told),
        )
        for raw in (manifest, told, signature, layout.encode(about)):
            self.offer(raw)

        def change(entries: list[dict[str, Any]]) -> None:
            found = Descriptor.of(layout.MANIFEST, layout.encode(about))
            entries[0] |= {"digest": model.digest, "size": model.size}
            entries[1] |= {"digest": found.digest, "size": found.size}

        self.index(change)

    def _signed(self, manifest: bytes, release: bytes, key: bytes) -> bytes:
        work = self.root / "attacker"
        (work / "signed").mkdir(parents=True, exist_ok=True)
        (work / "signed" / layout.MANIFEST_FILE).write_bytes(manifest)
        (work / "signed" / layout.RELEASE_FILE).write_bytes(release)
        (work / "key.pem").write_bytes(key)
        return FileKey(work / "key.pem").sign(work / "signed", work / "signature.json")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("tampering")
    publisher = Publisher(root)
    with gateway_of(publisher) as gateway:
        store, settings = device(root, gateway)
        publisher.publish(1)
        update(store, settings)
        boot(store.folder)
        publisher.publish(2)
        yield Scene(publisher, gateway, store, settings, root)


@pytest.fixture
def scene(shared: Scene) -> Scene:
    shared.gateway.lies.clear()
    # What an update before has fetched and verified would not be asked for again.
    shutil.rmtree(shared.store.slot(shared.store.read().inactive()), ignore_errors=True)
    return shared


def flipped(raw: bytes) -> bytes:
    at = len(raw) // 2
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def endless(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def moved(handler: Any) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def other_key() -> bytes:
    return subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"],
        check=True,
        capture_output=True,
    ).stdout


def with_path(scene: Scene, name: str) -> bytes:
    told = json.loads(scene.raw("manifest"))
    told["layers"][0]["annotations"][layout.FILE_PATH] = name
    return layout.encode(told)


DOCUMENTS = ("manifest", "signature manifest", "signature", "release")
FILES = ("model.onnx", "contract.json", "golden.jsonl")
Lie = Callable[[Scene], None]


def instead(name: str, answer: Callable[[bytes], Any]) -> Lie:
    return lambda scene: scene.lie(name, answer(scene.raw(name)))


def at_the_index(answer: Any) -> Lie:
    return lambda scene: scene.gateway.lies.update({layout.INDEX_FILE: answer})


def in_the_index(change: Callable[[list[dict[str, Any]]], Any]) -> Lie:
    return lambda scene: scene.index(change)


def swapped(scene: Scene) -> None:
    scene.lie("model.onnx", scene.raw("golden.jsonl"))
    scene.lie("golden.jsonl", scene.raw("model.onnx"))


def signed_by_another(scene: Scene) -> None:
    scene.replace(scene.raw("manifest") + b" ", other_key())


def outside(scene: Scene) -> None:
    scene.replace(with_path(scene, "../../escaped"), _our_key(scene))


LIES: dict[str, Lie] = {
    **{f"{name} changed": instead(name, flipped) for name in (*DOCUMENTS, *FILES)},
    **{f"{name} truncated": instead(name, lambda raw: raw[:-1]) for name in DOCUMENTS},
    "model truncated": instead("model.onnx", lambda raw: raw[:-1]),
    "manifest broken off": instead("manifest", cut_off),
    "model broken off": instead("model.onnx", cut_off),
    "manifest endless": instead("manifest", lambda raw: endless),
    "signature endless": instead("signature", lambda raw: endless),
    "model endless": instead("model.onnx", lambda raw: endless),
    "manifest gone": instead("manifest", lambda raw: None),
    "golden vectors gone": instead("golden.jsonl", lambda raw: None),
    "files swapped": swapped,
    "index is no JSON": at_the_index(b"<html>"),
    "index endless": at_the_index(endless),
    "index moved": at_the_index(moved),
    "index without signature": in_the_index(lambda entries: entries.pop(1)),
    "index with two models": in_the_index(lambda entries: entries.append(entries[0])),
    "index with a path for a digest": in_the_index(
        lambda entries: entries[0].update(digest="sha256:../../../../etc/passwd")
    ),
    "another manifest, all digests fit": lambda scene: scene.replace(
        flipped(scene.raw("manifest"))
    ),
    "another manifest, signed by another key": signed_by_another,
    "signed by us, a file named outside": outside,
    "signed by us, for another device": lambda scene: _for_another(scene),
}


def _our_key(scene: Scene) -> bytes:
    return (scene.root / "secrets" / "device-key" / "signing-key.pem").read_bytes()


def _for_another(scene: Scene) -> None:
    manifest = scene.raw("manifest")
    scene.replace(manifest, _our_key(scene))
    release = layout.Release("churn", "window", layout.digest_of(manifest), 10**12, "shop")
    told = layout.encode(release.to_json())
    signature = scene._signed(manifest, told, _our_key(scene))
    about = layout.referrer(
        layout.SIGSTORE,
        Descriptor.of(layout.MANIFEST, manifest),
        Descriptor.of(layout.SIGSTORE, signature),
        Descriptor.of(layout.RELEASE, told),
    )
    for raw in (told, signature, layout.encode(about)):
        scene.offer(raw)
    found = Descriptor.of(layout.MANIFEST, layout.encode(about))
    scene.index(lambda it: it[1].update(digest=found.digest, size=found.size))


@pytest.mark.parametrize("lie", LIES)
def test_what_is_not_the_bundle_is_refused(scene: Scene, lie: str) -> None:
    before = scene.store.read()
    LIES[lie](scene)
    with pytest.raises(AgentError):
        update(scene.store, scene.settings)
    after = scene.store.read()
    assert (after.slot, after.digest) == (before.slot, before.digest)
    assert after.sequence in (before.sequence, scene.release.sequence), "only what is signed counts"
    assert after.bad == (), "what is not genuine says nothing about what is"
    assert Device(scene.store.folder).predict(RECORD) == {"score": 30.0}
    assert not (scene.root / "escaped").exists()


def test_what_was_signed_for_another_device_is_said_so(scene: Scene) -> None:
    _for_another(scene)
    with pytest.raises(BundleRefused, match="this device is door of churn"):
        update(scene.store, scene.settings)


def test_then_the_genuine_bundle_is_taken(scene: Scene) -> None:
    assert update(scene.store, scene.settings).version == "v2"
    assert Device(scene.store.folder).predict(RECORD) == {"score": 60.0}


def test_a_slot_damaged_on_the_disk_is_noticed_and_fetched_again(scene: Scene) -> None:
    scene.publisher.publish(1)
    update(scene.store, scene.settings)
    Device(scene.store.folder)
    state = scene.store.read()
    file = scene.store.slot(state.slot or "") / "files" / "model.onnx"
    file.write_bytes(flipped(file.read_bytes()))
    scene.publisher.publish(2)
    assert update(scene.store, scene.settings).changed
    assert Device(scene.store.folder).predict(RECORD) == {"score": 60.0}
    state = scene.store.read()
    file = scene.store.slot(state.slot or "") / "files" / "contract.json"
    file.write_bytes(flipped(file.read_bytes()))
    # The other slot may hold the release before, which would answer.
    shutil.rmtree(scene.store.slot(state.inactive()), ignore_errors=True)
    with pytest.raises(NoModel, match=r"contract\.json is damaged"):
        Device(scene.store.folder)
    assert update(scene.store, scene.settings).changed, "the very same release, fetched again"
    assert Device(scene.store.folder).predict(RECORD) == {"score": 60.0}
