"""A device that lost or was given files it should not trust: what it answers, what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fourways_agent import Device, check
from fourways_agent import start as starting
from fourways_agent.check import boot
from fourways_agent.errors import (
    BundleRefused,
    GatewayUnreachable,
    ModelUnusable,
    NoModel,
    NoSpace,
)
from fourways_agent.main import main
from fourways_agent.state import DeviceSettings, Store
from fourways_agent.update import SPARE_BYTES, update
from fourways_runtime import bundle_layout as layout
from tests.kit.edge_plane import key_pair, public_half
from tests.kit.edge_rig import (
    RECORD,
    Gateway,
    Publisher,
    cut_off,
    device,
    gateway_of,
    golden,
    model,
)

pytestmark = pytest.mark.embedded


@pytest.fixture(autouse=True)
def _checks_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check without a process for each: what a crash does has its own tests."""

    def checked(what: str, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(check, f"_{what}")(*arguments)
        return answer

    monkeypatch.setattr(check, "_in_process", checked)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path, padding=2**12)


@pytest.fixture
def gateway(publisher: Publisher) -> Iterator[Gateway]:
    with gateway_of(publisher) as it:
        yield it


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()
    }


def answer(store: Store) -> float:
    return float(Device(store.folder).predict(RECORD)["score"])


def with_two(publisher: Publisher, store: Store, settings: DeviceSettings) -> dict[str, bytes]:
    """Bring a device to version 2; return release 1 as it was published."""
    publisher.publish(1)
    first = files_of(publisher.folder)
    update(store, settings)
    boot(store.folder)
    publisher.publish(2)
    update(store, settings)
    boot(store.folder)
    return first


LOSSES: dict[str, Callable[[Path], None]] = {
    "pointer": lambda it: _delete(it, "state.json"),
    "both pointers": lambda it: _delete(it, "state.json", "state.copy.json"),
    "pointers empty": lambda it: [
        (it / n).write_bytes(b"") for n in ("state.json", "state.copy.json")
    ],
    "pointers and newest": lambda it: _delete(it, "state.json", "state.copy.json", "newest.json"),
    "release": lambda it: [f.unlink() for f in it.glob("slots/*/signed/release.json")],
    "documents": lambda it: [f.write_bytes(b"") for f in it.glob("slots/*/documents.json")],
    "settings": lambda it: _delete(it, "settings.json"),
    "slots exchanged": lambda it: _exchange(it / "slots" / "a", it / "slots" / "b"),
}


def _delete(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_signed_makes_up_for_what_was_lost(
    tmp_path: Path, publisher: Publisher, gateway: Gateway, loss: str
) -> None:
    store, settings = device(tmp_path, gateway)
    first = with_two(publisher, store, settings)
    LOSSES[loss](store.folder)
    assert answer(store) == 60.0, "offline"
    gateway.lies = dict(first)
    LOSSES[loss](store.folder)
    with pytest.raises(BundleRefused, match="is older than release"):
        update(store, store.needs_settings())
    assert answer(store) == 60.0
    gateway.lies.clear()
    publisher.publish(3)
    assert update(store, store.needs_settings()).version == "v3"
    assert answer(store) == 90.0


def test_a_release_that_was_verified_counts_even_where_it_was_never_installed(
    tmp_path: Path, publisher: Publisher, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = device(tmp_path, gateway)
    first = with_two(publisher, store, settings)
    publisher.publish(3)
    with monkeypatch.context() as patch:
        patch.setattr("fourways_agent.files.free_bytes", lambda folder: 0)
        with pytest.raises(NoSpace, match="MiB of disk"):
            update(store, settings)
    state = store.read()
    assert state.previous_slot is not None, "the way back is kept until there is room"
    assert state.sequence == publisher.now
    for name in ("state.json", "state.copy.json"):
        (store.folder / name).unlink()
    gateway.lies = dict(first)
    with pytest.raises(BundleRefused, match=rf"older than release {int(publisher.now)}"):
        update(store, settings)
    assert answer(store) == 60.0


def test_a_download_goes_on_where_its_first_half_took_the_room(
    tmp_path: Path, publisher: Publisher, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    digests = publisher.digests()
    wanted = layout.read_model_manifest(publisher.blob(digests["manifest"]).read_bytes())
    bundle = sum(it.size for it in wanted.values())
    model_file = digests["model.onnx"]
    gateway.lies[layout.blob_name(model_file)] = cut_off(publisher.blob(model_file).read_bytes())
    slot = store.slot("a") / "files"

    def free(folder: Path) -> int:
        used = sum(it.stat().st_size for it in slot.iterdir()) if slot.is_dir() else 0
        return SPARE_BYTES + bundle - used

    monkeypatch.setattr("fourways_agent.files.free_bytes", free)
    with pytest.raises(GatewayUnreachable):
        update(store, settings)
    assert list(slot.glob("*.part"))
    gateway.lies.clear()
    assert update(store, settings).version == "v1"


def test_a_withdrawn_release_is_refused_though_its_successor_is_the_bundle_that_runs(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    boot(store.folder)
    publisher.publish(2)
    second = files_of(publisher.folder)
    publisher.publish(1)
    assert not update(store, settings).changed
    assert store.read().sequence == publisher.now
    gateway.lies = dict(second)
    with pytest.raises(BundleRefused, match="is older than release"):
        update(store, settings)
    for name in ("state.json", "state.copy.json", "newest.json"):
        (store.folder / name).unlink()
    with pytest.raises(BundleRefused, match="is older than release"):
        update(store, settings)
    assert answer(store) == 30.0


def test_what_is_known_already_is_not_fetched_again(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    gateway.asked.clear()
    assert not update(store, settings).changed
    assert [path.rpartition("/")[2] for path, _ in gateway.asked] == ["index.json"]


def test_an_unsigned_bundle_in_the_slot_does_not_answer(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    slot = store.slot(store.read().slot or "")
    other = Publisher(tmp_path / "attacker", padding=2**12)
    other.publish(9)
    found = other.digests()
    for name in (layout.ONNX_FILE, layout.CONTRACT_FILE, layout.GOLDEN_FILE):
        shutil.copy(other.blob(found[name]), slot / "files" / name)
    manifest = other.blob(found["manifest"]).read_bytes()
    (slot / "signed" / layout.MANIFEST_FILE).write_bytes(manifest)
    (slot / "documents.json").unlink()
    store.change(lambda state: replace(state, digest=layout.digest_of(manifest)))
    with pytest.raises(NoModel, match="signature does not cover these documents"):
        Device(store.folder)
    # And signed by a key of the attacker's own: nothing in the slot says which keys count.
    private = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"],
        check=True,
        capture_output=True,
    ).stdout
    Path(settings.key).write_bytes(public_half(private))
    with pytest.raises(NoModel, match="not made with a key that this device trusts"):
        Device(store.folder)


def test_a_key_file_that_is_gone_is_remembered(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    for content in (None, b"", key_pair()[1][:40]):
        Path(settings.key).unlink(missing_ok=True)
        if content is not None:
            Path(settings.key).write_bytes(content)
        assert answer(store) == 30.0


def test_a_bundle_of_another_namespace_is_refused(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    assert store.read().namespace == "shop"
    publisher.publish(2, namespace="office")
    with pytest.raises(BundleRefused, match="of namespace office, and this device takes"):
        update(store, settings)
    # Signed before releases named their namespace: accepted by new devices only.
    with pytest.MonkeyPatch.context() as patch:
        real = layout.Release.to_json
        patch.setattr(
            layout.Release,
            "to_json",
            lambda it: {k: v for k, v in real(it).items() if k != "namespace"},
        )
        publisher.publish(4)
    with pytest.raises(BundleRefused, match=r"of namespace \(none\)"):
        update(store, settings)
    new, _ = device(tmp_path, gateway, "new")
    assert update(new, settings).version == "v4"
    publisher.publish(5)
    assert update(new, settings).version == "v5"
    assert new.read().namespace == "shop", "from now on"
    publisher.publish(6, namespace="office")
    moved = replace(settings, namespace="office")
    assert update(store, moved).version == "v6"


def test_a_bundle_of_another_cluster_is_refused(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    # The installation gets a name: the same bundle, signed anew, and from now on this cluster only.
    publisher.publish(1, cluster="berlin-1")
    assert not update(store, settings).changed
    assert store.read().cluster == "berlin-1"
    for other in ("berlin-2", None):
        publisher.publish(2, cluster=other)
        with pytest.raises(BundleRefused, match=r"of cluster .*takes bundles of cluster berlin-1"):
            update(store, settings)
    assert answer(store) == 30.0
    publisher.publish(3, cluster="berlin-2")
    assert update(store, replace(settings, cluster="berlin-2")).version == "v3"
    assert store.read().cluster == "berlin-2"
    # A device that is told its cluster takes no bundle without one, not even as its first.
    new, _ = device(tmp_path, gateway, "new")
    publisher.publish(4)
    with pytest.raises(BundleRefused, match=r"of cluster \(none\)"):
        update(new, replace(settings, cluster="berlin-2"))


def test_a_device_that_is_moved_judges_the_release_it_has_again(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1, cluster="berlin-1")
    update(store, settings)
    assert not update(store, settings).changed
    with pytest.raises(BundleRefused, match="to move the device, give --cluster"):
        update(store, replace(settings, cluster="berlin-2"))


def test_programs_that_follow_an_update_at_once_start_it_one_by_one(
    tmp_path: Path, publisher: Publisher, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    programs = [Device(store.folder) for _ in range(6)]
    publisher.publish(2)
    update(store, settings)
    real, at_once, most, tests = starting.LoadedBundle.self_test, [0], [0], [0]

    def slow(loaded: starting.LoadedBundle) -> dict[str, Any]:
        at_once[0] += 1
        tests[0] += 1
        most[0] = max(most[0], at_once[0])
        try:
            return real(loaded)
        finally:
            at_once[0] -= 1

    monkeypatch.setattr(starting.LoadedBundle, "self_test", slow)
    answers: list[float] = []
    threads = [
        threading.Thread(target=lambda it=it: answers.append(it.predict(RECORD)["score"]))
        for it in programs
    ]
    for it in threads:
        it.start()
    for it in threads:
        it.join(60)
    assert answers == [60.0] * 6
    assert (most, tests) == ([1], [1]), "one start, and its outcome is shared"
    state = store.read()
    assert (state.confirmed, state.bad, state.crashes) == (True, (), 0)


def test_a_slot_that_is_damaged_shows_in_the_status(
    tmp_path: Path, publisher: Publisher, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    file = store.slot(store.read().slot or "") / "files" / layout.ONNX_FILE
    file.write_bytes(b"")
    assert main(["status", "--state", str(store.folder)]) == 3
    shown = json.loads(capsys.readouterr().out)
    assert shown["fault"] == "slot a: the slot's model.onnx is damaged"
    assert shown["nextStart"] == "finds no usable model; fourways-agent update fetches one"
    assert (shown["deployment"], shown["sequence"]) == ("churn", publisher.now)


def test_status_says_what_the_next_start_does_and_changes_nothing(
    tmp_path: Path, publisher: Publisher, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    store, settings = device(tmp_path, gateway)

    def status() -> tuple[int, dict[str, Any]]:
        before = {file: file.read_bytes() for file in store.folder.rglob("*") if file.is_file()}
        code = main(["status", "--state", str(store.folder)])
        after = {file: file.read_bytes() for file in store.folder.rglob("*") if file.is_file()}
        assert before == after
        return code, json.loads(capsys.readouterr().out)

    assert status()[0] == 0
    for version in (1, 2):
        publisher.publish(version)
        update(store, settings)
        assert answer(store) == 30.0 * version
    code, shown = status()
    assert (code, shown["version"], shown["slots"]["a"]["version"]) == (0, "v2", "v1")
    (store.slot("b") / "files" / layout.ONNX_FILE).unlink()
    code, shown = status()
    assert (code, shown["nextStart"]) == (3, "uses slot a")
    assert shown["slots"]["b"] == {"fault": "the slot's model.onnx is damaged"}
    for name in ("state.json", "state.copy.json"):
        (store.folder / name).write_bytes(b"")
    code, shown = status()
    assert (code, shown["fault"]) == (3, "the pointer names no slot")
    assert shown["nextStart"] == "uses slot a"
    for name in ("settings.json", "settings.copy.json"):
        (store.folder / name).unlink()
    code, shown = status()
    assert code == 4
    assert "run fourways-agent update with --gateway" in shown["fault"]


def test_retry_brings_a_bundle_back_that_was_given_up(
    tmp_path: Path, publisher: Publisher, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    store, settings = device(tmp_path, gateway)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fourways_runtime.workloads.prepare.check_vectors", lambda *arguments: None)
        digest = publisher.publish(2, golden=golden(3))
    with pytest.raises(ModelUnusable):
        update(store, settings)
    with pytest.raises(ModelUnusable, match="fourways-agent retry"):
        update(store, settings)
    assert main(["retry", "--state", str(store.folder)]) == 0
    assert json.loads(capsys.readouterr().out) == {"retrying": [digest]}
    with pytest.raises(ModelUnusable, match="self-test"):
        update(store, settings)
    publisher.publish(4)
    publisher.publish(2, golden=golden(2), raw=model(2, 2**12))
    assert update(store, settings).changed


def test_a_program_that_is_ended_from_outside_while_it_starts_a_model_gives_nothing_up(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    killed = (
        "import os, sys; from fourways_agent import device, loading, start;"
        "loading.load_on_device = lambda *_, **more: os.kill(os.getpid(), 9);"
        "start.boot_id = lambda: sys.argv[2]; device.Device(sys.argv[1])"
    )
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    for name in ("one", "one", "one", "one", "two"):
        command = [sys.executable, "-c", killed, str(store.folder), name]
        assert subprocess.run(command, check=False, timeout=120).returncode == -9
    state = store.read()
    assert (state.bad, state.crashes) == ((), 0)
    assert answer(store) == 30.0


def test_an_update_over_a_damaged_slot_leaves_the_whole_one_alone(
    publisher: Publisher, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = device(tmp_path, gateway)
    with_two(publisher, store, settings)
    damaged = store.read().slot
    assert damaged is not None
    (store.slot(damaged) / "files" / "contract.json").write_text("{}")
    publisher.publish(3)

    def cut(*_: Any) -> None:
        raise NoSpace("the power is cut")

    with monkeypatch.context() as patch:
        patch.setattr("fourways_agent.update.write_documents", cut)
        with pytest.raises(NoSpace):
            update(store, settings)
    assert answer(store) == RECORD["age"], "version 1, from the other slot"
    update(store, settings)
    assert answer(store) == 3 * RECORD["age"]
