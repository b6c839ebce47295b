"""The build: from a model's reference to an unsigned bundle for each target, or nothing.

Owns the order: fetch and check the model as every shell does, make variants, measure each, choose
one for every target, and hand over only once each target has a winner. Intermediate files are in a
private folder that is deleted afterwards. Whatever parses the model runs here, and neither the key
nor a right to publish is needed: :mod:`.sign` has them.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fourways_api import Contract, GoldenVectors, RunReport
from fourways_api.modes import EdgeTarget
from fourways_api.runtime_config import EdgeConfig
from fourways_api.status import BundleStatus
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor
from fourways_runtime.errors import BudgetExceeded, ConfigError
from fourways_runtime.io.fetch.part import disk_errors
from fourways_runtime.model_watch import LOAD_SECONDS, WATCH
from fourways_runtime.scoring.golden import Vector

from ..place_watch import PlaceWatch
from ..prepare import fetch_golden, fetch_model, fetch_tokenizer, prepare
from . import judge, variants
from .judge import MIB, Row, VariantChoice
from .measure import NotMeasured, measured
from .publish import Staged, published_variant, watched_place
from .unsigned import UnsignedBundle, UnsignedBundles, emptied, hand_over
from .variants import Skipped

logger = logging.getLogger("fourways.edge")


def build(config: EdgeConfig, places: PlaceWatch | None = None) -> RunReport:
    """Build a bundle for each target and hand it over to the signing.

    ``places`` watches the calls into the folder of published bundles.

    Raises:
        WorkloadError: The build failed; the error names the cause, and BudgetExceeded contains the
            table of measurements. Nothing was handed over.

    """
    golden = _golden(config)
    # Rejects a model that does not reproduce its golden vectors before any work goes into it.
    prepared = prepare(config)
    digest = prepared.digest
    # A bundle contains the labels, also those of a file.
    config = config.model_copy(update={"contract": prepared.pipeline.contract})
    model = fetch_model(config).path
    if config.model.format == "onnx":
        variants.check_whole(model)
    vectors = fetch_golden(config, golden)
    with disk_errors(), _work_folder(config) as folder:
        files = _common_files(config, golden, vectors, fetch_tokenizer(config))
        if prepared.profile is not None:
            profile = prepared.profile.model_dump(mode="json", exclude_none=True)
            files[layout.PROFILE_FILE] = layout.encode(profile)
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
        made, rows = _measured(config, model, folder, files)
        logger.info("measured\n%s", judge.table(rows))
        chosen = _chosen(config, rows, digest, places or PlaceWatch())
        unsigned = emptied(config)
        bundles = [
            _staged(config, it, made[it.choice.row.variant], files, unsigned, digest, rows)
            for it in chosen
        ]
        hand_over(unsigned, UnsignedBundles(source=digest, bundles=tuple(bundles)))
    built = ", ".join(f"{it.status.target}: {it.status.variant}" for it in bundles)
    return RunReport(
        outcome="Succeeded",
        message=f"built {built}",
        digest=digest,
        version=config.model.version,
    )


def _golden(config: EdgeConfig) -> GoldenVectors:
    if config.model.format not in variants.MAKERS:
        raise ConfigError(
            f"model.format: devices run ONNX and LiteRT, and this model is {config.model.format};"
            " export it as ONNX (skl2onnx, onnxmltools) and set format to onnx"
        )
    golden = config.contract.golden_vectors
    if golden is None:
        raise ConfigError(
            "contract.goldenVectors is not set: the build measures a bundle with it, and devices "
            "verify a bundle with it"
        )
    return golden


@contextmanager
def _work_folder(config: EdgeConfig) -> Iterator[Path]:
    root = Path(config.paths.cache_dir)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edge-", dir=root) as folder:
        yield Path(folder)


def _common_files(
    config: EdgeConfig, golden: GoldenVectors, vectors: Sequence[Vector], tokenizer: Path | None
) -> dict[str, bytes]:
    """Return a bundle's files other than the model, the same for every variant and target."""
    lines = [orjson.dumps({"inputs": it.inputs, "outputs": it.outputs}) for it in vectors]
    golden_lines = b"\n".join(lines) + b"\n"
    ours = golden.model_copy(
        update={
            # The file is in the bundle; a device replaces this URI with the file's actual path.
            "uri": f"file:///{layout.GOLDEN_FILE}",
            "digest": layout.digest_of(golden_lines),
            "credentials": None,
        }
    )
    tokenizer_file = config.contract.tokenizer
    if tokenizer_file is not None:
        uri = f"file:///{layout.TOKENIZER_FILE}"
        tokenizer_file = tokenizer_file.model_copy(update={"uri": uri, "credentials": None})
    contract: Contract = config.contract.model_copy(
        update={"golden_vectors": ours, "tokenizer": tokenizer_file}
    )
    files = {
        layout.CONTRACT_FILE: layout.encode(contract.to_json()),
        layout.GOLDEN_FILE: golden_lines,
    }
    if tokenizer is not None:
        files[layout.TOKENIZER_FILE] = tokenizer.read_bytes()
    features = config.edge.features
    if features is not None:
        # The database, its query and its Secret are left out: devices query the gateway.
        names = features.inputs or tuple(field.name for field in config.contract.inputs)
        files[layout.FEATURES_FILE] = layout.encode(
            {"inputs": list(names), "defaults": [it.to_json() for it in features.defaults]}
        )
    return files


def _measured(
    config: EdgeConfig, model: Path, folder: Path, others: Mapping[str, bytes]
) -> tuple[dict[str, Path], list[Row]]:
    """Make and measure every variant; return the files and a row for each variant.

    ``others`` are the other files of a bundle, which are in ``folder``.
    """
    name = layout.MODEL_FILES[config.model.format]
    beside = {other: folder / other for other in others}
    made: dict[str, Path] = {}
    rows = []
    for variant, make in variants.MAKERS[config.model.format].items():
        try:
            with WATCH.doing(f"creating the variant {variant}"), WATCH.call(seconds=LOAD_SECONDS):
                made[variant] = make(model, folder)
            size = made[variant].stat().st_size + sum(map(len, others.values()))
            result = measured({name: made[variant], **beside}, threads=config.threads)
            rows.append(Row(variant, size, result))
        except (Skipped, NotMeasured) as reason:
            logger.info("variant left out", extra={"variant": variant, "because": str(reason)})
            rows.append(Row(variant, skipped=str(reason)))
    return made, rows


@dataclass(frozen=True, slots=True)
class _Winner:
    """The variant chosen for a target, and the folder it is published in."""

    target: EdgeTarget
    choice: VariantChoice


def _chosen(
    config: EdgeConfig, rows: Sequence[Row], source: str, places: PlaceWatch
) -> list[_Winner]:
    """Return each target's winner. Raises BudgetExceeded if a target has none."""
    found, without = [], []
    for target in config.edge.targets:
        with watched_place(config, target.name, places, "reading the release") as place:
            before = published_variant(place, source)
        choice = judge.winner(rows, target, before)
        if choice is None:
            without.append(target)
        else:
            found.append(_Winner(target, choice))
    if without:
        raise BudgetExceeded(judge.verdict(rows, without))
    return found


def _staged(
    config: EdgeConfig,
    winner: _Winner,
    model: Path,
    files: dict[str, bytes],
    folder: Path,
    source: str,
    rows: Sequence[Row],
) -> UnsignedBundle:
    """Write a bundle's files into the folder of unsigned bundles."""
    target, row = winner.target, winner.choice.row
    staged = Staged(folder)
    contents = {layout.MODEL_FILES[config.model.format]: model.read_bytes(), **files}
    manifest = _model_manifest(config, target, row, contents, source, staged)
    report = _report(manifest, target, winner.choice, rows, staged)
    assert row.measured is not None  # noqa: S101  (a winner was measured)
    status = BundleStatus(
        target=target.name,
        digest=manifest.digest,
        variant=row.variant,
        size_mi_b=round(row.bundle_bytes / MIB, 3),
        memory_mi_b=round(row.measured.memory_bytes / MIB, 1),
        latency_ms=round(row.measured.p50_ms, 4),
        agreement=row.measured.agreement,
    )
    return UnsignedBundle(status=status, report=report.digest, blobs=tuple(staged.blobs))


def _model_manifest(
    config: EdgeConfig,
    target: EdgeTarget,
    row: Row,
    contents: dict[str, bytes],
    source: str,
    staged: Staged,
) -> Descriptor:
    files = {name: staged.add(layout.MEDIA_TYPES[name], raw) for name, raw in contents.items()}
    name, version = config.name, config.model.version
    model_config = layout.model_config(name, version, row.variant, files)
    annotations = {
        layout.TITLE_NOTE: name,
        layout.VERSION_NOTE: version,
        layout.TARGET_NOTE: target.name,
        "dev.fourways.edge.platform": target.platform,
        layout.VARIANT_NOTE: row.variant,
        layout.SOURCE_NOTE: source,
        # A device requires the same agreement as the build: processors differ in how they round
        # integers.
        layout.AGREEMENT_NOTE: f"{target.budget.min_agreement:g}",
    }
    described = staged.add(layout.MODEL_CONFIG, layout.encode(model_config))
    manifest = layout.model_manifest(described, files, annotations)
    return staged.add(layout.MANIFEST, layout.encode(manifest))


def _report(
    manifest: Descriptor,
    target: EdgeTarget,
    choice: VariantChoice,
    rows: Sequence[Row],
    staged: Staged,
) -> Descriptor:
    """Stage the measurements for human readers; they are unsigned, and devices never fetch them."""
    report = {
        "target": target.to_json(),
        "variant": choice.row.variant,
        "because": choice.reason,
        "measuredOn": {"platform": sys.platform, "machine": _machine()},
        "variants": [
            {
                "variant": it.variant,
                "skipped": it.skipped or None,
                "sizeBytes": it.bundle_bytes,
                "fails": judge.excess(it, target.budget),
            }
            | ({} if it.measured is None else _measurements(it.measured))
            for it in rows
        ],
    }
    layer = staged.add(layout.REPORT, layout.encode(report))
    described = layout.referrer(layout.REPORT, manifest, layer)
    return staged.add(layout.MANIFEST, layout.encode(described))


def _measurements(it: judge.Measured) -> dict[str, Any]:
    return {
        "loadMs": it.load_ms,
        "p50Ms": it.p50_ms,
        "p99Ms": it.p99_ms,
        "memoryBytes": it.memory_bytes,
        "agreement": it.agreement,
        "vectors": it.vectors,
        "differences": list(it.differences),
    }


def _machine() -> str:
    import platform

    return platform.machine()
