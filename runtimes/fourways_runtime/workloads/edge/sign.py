"""The signing of bundles: it has the key and writes what devices read, and loads no model.

Runs after the build, in a container of its own, as ``python -m fourways_runtime edge-sign``.
Deployment, target and sequence in a signed release come from the configuration and from what is
published, never from the build.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fourways_api import RunReport
from fourways_api.runtime_config import EdgeConfig
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor
from fourways_runtime.config import read_edge_config
from fourways_runtime.io.fetch.part import disk_errors
from fourways_runtime.io.folders import OutputFolder
from fourways_runtime.process import end_with, run_job

from ..place_watch import PlaceWatch
from .publish import Staged, next_release, publish, watched_place
from .signing import SigningKey, signing_key
from .unsigned import (
    UnsignedBundle,
    checked,
    document,
    folder_of,
    manifest_of,
    refused,
    taken_over,
    targets_of,
)

logger = logging.getLogger("fourways.edge")

Clock = Callable[[], float]


def main() -> int:
    """Sign once; return an exit code from ``fourways_runtime.errors``."""
    return run_job(read_edge_config, _sign, logger)


def _sign(config: EdgeConfig) -> RunReport:
    places = PlaceWatch()
    places.start(lambda error: end_with(error, config, logger))
    return sign_bundles(config, places=places)


def sign_bundles(
    config: EdgeConfig, clock: Clock = time.time, places: PlaceWatch | None = None
) -> RunReport:
    """Sign and publish what the build handed over.

    ``places`` watches the calls into the folder of published bundles, and into an HSM.

    Raises:
        WorkloadError: Nothing was signed, except that with PublishFailed some of the targets may
            have been published.

    """
    places = places or PlaceWatch()
    key = signing_key(config.edge.signing, config.paths, places)
    folder = folder_of(config)
    unsigned = taken_over(folder)
    wanted = sorted(target.name for target in config.edge.targets)
    if targets_of(unsigned.bundles) != wanted:
        raise refused("its targets are not those of the deployment")
    with disk_errors():
        found = [_checked(config, folder, bundle) for bundle in unsigned.bundles]
        for bundle in found:
            what = "publishing the bundle"
            with watched_place(config, bundle.target, places, what) as place:
                _publish(config, bundle, key, place, clock)
    # On a cluster the folder cannot be written here, and goes with the pod.
    shutil.rmtree(folder, ignore_errors=True)
    bundles = tuple(bundle.status for bundle in unsigned.bundles)
    variants = ", ".join(f"{bundle.target}: {bundle.variant}" for bundle in bundles)
    return RunReport(
        outcome="Succeeded",
        message=f"published {variants}",
        digest=unsigned.source,
        version=config.model.version,
        bundles=bundles,
    )


@dataclass(frozen=True, slots=True)
class _Checked:
    """A bundle whose files have the digests that are their names."""

    target: str
    manifest: bytes
    report: Descriptor
    files: dict[str, Path]


def _checked(config: EdgeConfig, folder: Path, bundle: UnsignedBundle) -> _Checked:
    files = checked(folder, bundle)
    manifest = manifest_of(folder, bundle, files, config.name, config.model.version)
    report = Descriptor.of(layout.MANIFEST, document(folder, bundle.report))
    return _Checked(bundle.status.target, manifest, report, files)


def _publish(
    config: EdgeConfig, bundle: _Checked, key: SigningKey, place: OutputFolder, clock: Clock
) -> None:
    manifest = Descriptor.of(layout.MANIFEST, bundle.manifest)
    with tempfile.TemporaryDirectory(prefix="bundle-") as work:
        staged = Staged(Path(work), dict(bundle.files))
        signature = _signature(config, bundle, manifest, key, staged, place, clock)
        referrers = {layout.SIGSTORE: signature, layout.REPORT: bundle.report}
        index = layout.index(manifest, config.model.version, referrers)
        publish(place, staged, layout.encode(index))
    logger.info("published", extra={"target": bundle.target, "digest": manifest.digest})


def _signature(
    config: EdgeConfig,
    bundle: _Checked,
    manifest: Descriptor,
    key: SigningKey,
    staged: Staged,
    place: OutputFolder,
    clock: Clock,
) -> Descriptor:
    release = next_release(
        place,
        config.name,
        bundle.target,
        manifest.digest,
        clock,
        namespace=config.namespace,
        cluster=config.cluster or "",
    )
    release_file = layout.encode(release.to_json())
    folder = staged.folder / "signed"
    folder.mkdir()
    (folder / layout.MANIFEST_FILE).write_bytes(bundle.manifest)
    (folder / layout.RELEASE_FILE).write_bytes(release_file)
    raw = key.sign(folder, staged.folder / layout.SIGNATURE_FILE)
    layers = (staged.add(layout.SIGSTORE, raw), staged.add(layout.RELEASE, release_file))
    staged.add(layout.EMPTY, b"{}")
    described = layout.referrer(layout.SIGSTORE, manifest, *layers)
    return staged.add(layout.MANIFEST, layout.encode(described))
