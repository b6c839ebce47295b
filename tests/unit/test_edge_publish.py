"""Publishing: nothing half to be seen, one generation kept, releases in order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor
from fourways_runtime.errors import FetchRefused, PublishFailed
from fourways_runtime.io.folders import (
    PUBLISH_ERRORS,
    BucketFolder,
    LocalFolder,
    OutputFolder,
    open_folder,
)
from fourways_runtime.workloads.edge.publish import Staged, next_release, publish


def local(root: Path, components: tuple[str, ...], shown: str) -> LocalFolder:
    return LocalFolder(shown, None, "", root, components, PUBLISH_ERRORS, public=True)


def bucket() -> BucketFolder:
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    memory.store.clear()
    return BucketFolder("s3://bucket/out", memory, "bucket/out", PUBLISH_ERRORS)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> OutputFolder:
    (tmp_path / "claim").mkdir()
    if request.param == "bucket":
        return bucket()
    return local(tmp_path / "claim", ("out", "door"), "pvc://claim/out/door")


def release(
    place: OutputFolder, folder: Path, model: bytes, clock: Callable[[], float] = lambda: 100.0
) -> int:
    """Publish a bundle of one made-up file; return its sequence."""
    folder.mkdir(exist_ok=True)
    staged = Staged(folder)
    files = {
        name: staged.add(layout.MEDIA_TYPES[name], model + name.encode())
        for name in (layout.ONNX_FILE, *layout.REQUIRED)
    }
    config = staged.add(layout.MODEL_CONFIG, b"{}")
    manifest = staged.add(layout.MANIFEST, layout.encode(layout.model_manifest(config, files, {})))
    told = next_release(place, "churn", "door", manifest.digest, clock)
    about = layout.referrer(
        layout.SIGSTORE,
        manifest,
        staged.add(layout.SIGSTORE, b'{"sig": 1}'),
        staged.add(layout.RELEASE, layout.encode(told.to_json())),
    )
    signature = staged.add(layout.MANIFEST, layout.encode(about))
    staged.add(layout.EMPTY, b"{}")
    index = layout.index(manifest, "v1", {layout.SIGSTORE: signature})
    publish(place, staged, layout.encode(index))
    return told.sequence


def model_of(place: OutputFolder) -> bytes | None:
    """Return the model that a device would get now; every blob it names must be there."""
    raw = place.get(layout.INDEX_FILE, 2**20)
    if raw is None:
        return None
    published = layout.read_index(raw)

    def blob(it: Descriptor) -> bytes:
        found = place.get(layout.blob_name(it.digest), 2**20)
        assert found is not None
        assert layout.digest_of(found) == it.digest
        return found

    blob(published.signature)
    files = layout.read_model_manifest(blob(published.model))
    return {name: blob(it) for name, it in files.items()}[layout.ONNX_FILE]


def test_a_device_finds_all_that_the_index_names(place: OutputFolder, tmp_path: Path) -> None:
    release(place, tmp_path / "work", b"one")
    assert model_of(place) == b"onemodel.onnx"
    assert json.loads(place.get("oci-layout", 100) or b"") == {"imageLayoutVersion": "1.0.0"}


def test_blobs_are_kept_for_one_generation(place: OutputFolder, tmp_path: Path) -> None:
    blobs = {}
    for model in (b"one", b"two", b"three"):
        release(place, tmp_path / model.decode(), model)
        blobs[model] = layout.digest_of(model + b"model.onnx")
    assert place.size(layout.blob_name(blobs[b"three"]))
    assert place.size(layout.blob_name(blobs[b"two"])), "a device may be fetching it"
    assert place.size(layout.blob_name(blobs[b"one"])) is None


def test_the_same_bundle_again_is_no_new_release_and_forgets_nothing(
    place: OutputFolder, tmp_path: Path
) -> None:
    release(place, tmp_path / "a", b"one")
    second = release(place, tmp_path / "b", b"two")
    assert release(place, tmp_path / "c", b"two", lambda: 900.0) == second
    assert place.size(layout.blob_name(layout.digest_of(b"onemodel.onnx")))


def test_every_new_release_has_a_higher_sequence(place: OutputFolder, tmp_path: Path) -> None:
    times = iter([100.0, 50.0, 50.0, 700.0])
    found = [
        release(place, tmp_path / str(at), model, lambda: next(times))
        for at, model in enumerate((b"one", b"two", b"one", b"three"))
    ]
    assert found == [100, 101, 102, 700]


class Breaking:
    """A place that breaks at its nth write."""

    def __init__(self, place: OutputFolder, breaks_at: int) -> None:
        self._place = place
        self._left = breaks_at

    def put_file(self, name: str, file: Path) -> None:
        self._count()
        self._place.put_file(name, file)

    def delete(self, name: str) -> None:
        self._count()
        self._place.delete(name)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise PublishFailed("broken off")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)


def test_broken_off_anywhere_one_whole_bundle_is_published(
    place: OutputFolder, tmp_path: Path
) -> None:
    release(place, tmp_path / "old", b"zero")
    release(place, tmp_path / "one", b"one")
    seen = set()
    for at in range(1, 30):
        try:
            release(Breaking(place, at), tmp_path / "two", b"two")  # type: ignore[arg-type]
        except PublishFailed:
            seen.add(model_of(place))
            continue
        break
    else:
        raise AssertionError("publishing never ended")
    assert model_of(place) == b"twomodel.onnx"
    assert seen <= {b"onemodel.onnx", b"twomodel.onnx"}
    assert b"onemodel.onnx" in seen


def test_no_link_is_followed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    claim, elsewhere = tmp_path / "claim", tmp_path / "elsewhere"
    claim.mkdir()
    elsewhere.mkdir()
    (claim / "out").symlink_to(elsewhere)
    place = local(claim, ("out",), "pvc://claim/out")
    source = tmp_path / "file"
    source.write_bytes(b"x")
    with pytest.raises(PublishFailed):
        place.put_file("index.json", source)
    assert not list(elsewhere.iterdir())


def test_a_folder_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"x")
    (tmp_path / "taken").write_bytes(b"")
    place = local(tmp_path, ("taken", "out"), "pvc://claim/taken/out")
    with pytest.raises(PublishFailed, match=r"pvc://claim/taken/out: .*not a directory"):
        place.put_file("index.json", source)


def test_published_files_can_be_read_by_the_gateway(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"x")
    before = os.umask(0o077)
    try:
        local(tmp_path, ("out",), "").put_file("index.json", source)
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "index.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("uri", ["https://host/x", "oci://host/x", "pvc://claim/../x"])
def test_places_that_are_none_are_refused(uri: str) -> None:
    with pytest.raises(FetchRefused):
        open_folder(uri, secret=None, policy=FetchPolicy(), paths=Paths())
