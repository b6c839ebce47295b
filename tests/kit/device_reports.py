"""Devices that report to a gateway: the published bundle with its profile, and their reports."""

from __future__ import annotations

from pathlib import Path

from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor
from fourways_runtime.scoring.device_report import Tally, encode
from fourways_runtime.scoring.profile import RecordProfiler
from tests.kit.drift_tables import Table, outputs_of


def publish_profile(folder: Path, profile: bytes | None) -> str:
    """Lay out a bundle whose files are empty but for the profile; return the profile's digest."""
    files = dict.fromkeys((layout.ONNX_FILE, *layout.REQUIRED), b"")
    if profile is not None:
        files[layout.PROFILE_FILE] = profile
    described = {n: Descriptor.of(layout.MEDIA_TYPES[n], raw) for n, raw in files.items()}
    config = Descriptor.of(layout.MODEL_CONFIG, b"{}")
    manifest = layout.encode(layout.model_manifest(config, described, {}))
    model = Descriptor.of(layout.MANIFEST, manifest)
    signature = Descriptor.of(layout.MANIFEST, b"signature")
    for raw in (*files.values(), manifest):
        blob = folder / layout.blob_name(layout.digest_of(raw))
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(raw)
    folder.mkdir(parents=True, exist_ok=True)
    index = layout.index(model, "5", {layout.SIGSTORE: signature})
    (folder / layout.INDEX_FILE).write_bytes(layout.encode(index))
    return layout.digest_of(profile or b"")


def report(
    profiler: RecordProfiler,
    profile: str,
    columns: Table,
    *,
    device: int = 0,
    sequence: int = 1,
    rejects: int = 0,
) -> bytes:
    """Return what a device sends that has scored these records."""
    counts = profiler.count(columns, outputs_of(columns), rejects=rejects)
    return encode(Tally.of(counts, profiler), profile, f"{device:016x}", sequence)
