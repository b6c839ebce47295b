"""The published format: what is written can be read, and what is hostile is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor, MalformedBundle

HEX = "0" * 64
FILES = {
    name: Descriptor(layout.MEDIA_TYPES[name], f"sha256:{HEX}", 3)
    for name in (layout.ONNX_FILE, *layout.REQUIRED)
}
MODEL = Descriptor(layout.MANIFEST, f"sha256:{HEX}", 9)
SIGNATURE = Descriptor(layout.MANIFEST, f"sha256:{'1' * 64}", 9)


def manifest() -> dict[str, Any]:
    config = Descriptor.of(layout.MODEL_CONFIG, b"{}")
    return layout.model_manifest(config, FILES, {layout.VERSION_NOTE: "v1"})


def test_what_is_written_can_be_read() -> None:
    raw = layout.encode(manifest())
    assert layout.read_model_manifest(raw) == FILES
    assert layout.read_annotations(raw) == {layout.VERSION_NOTE: "v1"}
    index = layout.index(MODEL, "v1", {layout.SIGSTORE: SIGNATURE, layout.REPORT: SIGNATURE})
    found = layout.read_index(layout.encode(index))
    assert (found.model, found.signature) == (MODEL, SIGNATURE)
    about = layout.referrer(
        layout.SIGSTORE,
        MODEL,
        Descriptor(layout.SIGSTORE, MODEL.digest, 1),
        Descriptor(layout.RELEASE, MODEL.digest, 2),
    )
    bundle, release = layout.read_signature_manifest(layout.encode(about), MODEL.digest)
    assert (bundle.size, release.size) == (1, 2)


def test_the_manifest_is_what_other_tools_read() -> None:
    told = manifest()
    assert told["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert told["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert told["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert [layer["mediaType"] for layer in told["layers"]] == [
        "application/vnd.cncf.model.weight.v1.raw",
        "application/vnd.cncf.model.weight.config.v1.raw",
        "application/vnd.cncf.model.dataset.v1.raw",
    ]
    assert told["layers"][0]["annotations"] == {"org.cncf.model.filepath": "model.onnx"}


def _layer(**change: Any) -> dict[str, Any]:
    told = manifest()
    told["layers"][0] |= change
    return told


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "/etc/passwd",
        "model.onnx\0",
        "sub/model.onnx",
        "notes.txt",
        "",
        None,
        7,
    ],
)
def test_a_file_name_no_bundle_has_is_refused(name: Any) -> None:
    with pytest.raises(MalformedBundle, match="lists a file"):
        layout.read_model_manifest(
            layout.encode(_layer(annotations={"org.cncf.model.filepath": name}))
        )


@pytest.mark.parametrize("models", [(), tuple(layout.MODEL_FILES.values())])
def test_a_bundle_without_one_model_is_refused(models: tuple[str, ...]) -> None:
    files = dict.fromkeys((*models, *layout.REQUIRED), MODEL)
    told = layout.model_manifest(Descriptor.of(layout.MODEL_CONFIG, b"{}"), files, {})
    for layer in told["layers"]:
        layer["mediaType"] = layout.MEDIA_TYPES[layer["annotations"][layout.FILE_PATH]]
    with pytest.raises(MalformedBundle, match=r"one of model\.onnx and model\.tflite"):
        layout.read_model_manifest(layout.encode(told))


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:../../x"},
        {"digest": f"sha512:{HEX}"},
        {"digest": None},
        {"size": -1},
        {"size": 2**60},
        {"size": True},
        {"size": "3"},
        {"mediaType": "application/x-tar"},
        {"mediaType": None},
        {"annotations": None},
    ],
)
def test_a_layer_that_is_no_descriptor_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        layout.read_model_manifest(layout.encode(_layer(**change)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"manifests": {}}',
        b'{"manifests": []}',
        b'{"manifests": [1, null]}',
        json.dumps({"manifests": [{"artifactType": []}]}).encode(),
        json.dumps({"manifests": [{"artifactType": layout.MODEL}] * 65}).encode(),
    ],
)
def test_what_is_no_index_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedBundle):
        layout.read_index(raw)


def test_a_bundle_that_lacks_a_file_is_refused() -> None:
    told = manifest()
    del told["layers"][2]
    with pytest.raises(MalformedBundle, match="lacks"):
        layout.read_model_manifest(layout.encode(told))


def test_a_signature_about_another_manifest_is_refused() -> None:
    about = layout.referrer(layout.SIGSTORE, SIGNATURE)
    with pytest.raises(MalformedBundle, match="another manifest"):
        layout.read_signature_manifest(layout.encode(about), MODEL.digest)


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": -1},
        {"sequence": True},
        {"sequence": 1.5},
        {"sequence": 2**63},
        {"manifest": "x"},
        {"deployment": None},
        {"target": 1},
    ],
)
def test_a_release_that_is_none_is_refused(change: dict[str, Any]) -> None:
    told = layout.Release("churn", "door", MODEL.digest, 3).to_json()
    assert layout.read_release(layout.encode(told)).sequence == 3
    with pytest.raises(MalformedBundle):
        layout.read_release(layout.encode(told | change))
