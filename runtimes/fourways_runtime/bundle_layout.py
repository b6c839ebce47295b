"""The published format: an OCI image layout with a ModelPack manifest, its signature and a report.

Owns names, media types and the parsing of untrusted documents: each one is checked field by field,
and nothing in it is ever used as a path. Build and device share this module, so it imports only the
standard library and does no I/O.

::

    index.json ── model manifest        files by digest: model, contract, golden vectors, and
               │                        features, tokenizer and training profile, if it has them
               ├─ signature (about it)  Sigstore bundle over manifest and release; the release
               └─ report    (about it)  what was measured; not signed, not fetched by devices

The model manifest contains no time and no measurement: the same inputs give the same digest. The
sequence, which orders releases, is in the release document, signed together with the manifest.

Sources: https://github.com/opencontainers/image-spec/blob/main/image-layout.md,
https://github.com/modelpack/model-spec, https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
MODEL = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
SIGSTORE = "application/vnd.dev.sigstore.bundle.v0.3+json"
RELEASE = "application/vnd.fourways.edge.release.v1+json"
REPORT = "application/vnd.fourways.edge.report.v1+json"
FILE_PATH = "org.cncf.model.filepath"

ONNX_FILE = "model.onnx"
MODEL_FILES = {"onnx": ONNX_FILE, "litert": "model.tflite"}
"""The name of the model's file by the model's format; a bundle has one of them."""

CONTRACT_FILE = "contract.json"
GOLDEN_FILE = "golden.jsonl"
FEATURES_FILE = "features.json"
TOKENIZER_FILE = "tokenizer.json"
PROFILE_FILE = "profile.json"
"""The training profile: the deployment compares the records that its devices score."""

MEDIA_TYPES = {
    **dict.fromkeys(MODEL_FILES.values(), "application/vnd.cncf.model.weight.v1.raw"),
    CONTRACT_FILE: "application/vnd.cncf.model.weight.config.v1.raw",
    GOLDEN_FILE: "application/vnd.cncf.model.dataset.v1.raw",
    FEATURES_FILE: "application/vnd.cncf.model.weight.config.v1.raw",
    TOKENIZER_FILE: "application/vnd.cncf.model.weight.config.v1.raw",
    PROFILE_FILE: "application/vnd.cncf.model.weight.config.v1.raw",
}
"""The files of a bundle, by name; a bundle with any other file is rejected."""

REQUIRED = (CONTRACT_FILE, GOLDEN_FILE)
"""The files of every bundle besides its model."""

TITLE_NOTE = "org.opencontainers.image.title"
VERSION_NOTE = "org.opencontainers.image.version"
TARGET_NOTE = "dev.fourways.edge.target"
VARIANT_NOTE = "dev.fourways.edge.variant"
SOURCE_NOTE = "dev.fourways.edge.source"
AGREEMENT_NOTE = "dev.fourways.edge.agreement"
"""Annotations of a model manifest that devices, the signing and the next build read."""

MANIFEST_FILE = "manifest.json"
RELEASE_FILE = "release.json"
SIGNATURE_FILE = "signature.json"
"""The signed documents are these two files in one folder; the signature is beside the folder."""

INDEX_FILE = "index.json"
LAYOUT_FILE = "oci-layout"
LAYOUT = {"imageLayoutVersion": "1.0.0"}
MAX_DOCUMENT_BYTES = 2**20
"""Maximum size of an index, manifest, release or signature."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class MalformedBundle(ValueError):
    """A document violates the published format; ``str()`` names the field, never its value."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: its sha256, its size in bytes, and its media type."""

    media_type: str
    digest: str
    size: int

    @classmethod
    def of(cls, media_type: str, raw: bytes) -> Descriptor:
        """Return the descriptor of these bytes."""
        return cls(media_type, digest_of(raw), len(raw))

    def to_json(self, **more: Any) -> dict[str, Any]:
        """Return the descriptor in OCI's JSON form."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **more}


@dataclass(frozen=True, slots=True)
class PublishedBundle:
    """The manifests that an index names."""

    model: Descriptor
    signature: Descriptor


@dataclass(frozen=True, slots=True)
class Release:
    """The signed document beside the manifest: the target, and its place in the order."""

    deployment: str
    target: str
    manifest: str
    """Digest of the model manifest."""

    sequence: int
    """A device never goes back to a lower one."""

    namespace: str = ""
    """Namespace of the deployment; empty in releases signed before this field existed."""

    cluster: str = ""
    """Name of its cluster; empty if the installation sets none, or in older releases."""

    def to_json(self) -> dict[str, Any]:
        """Return the document. Devices ignore unknown fields."""
        named = {"cluster": self.cluster, "namespace": self.namespace}
        return {name: value for name, value in named.items() if value} | {
            "deployment": self.deployment,
            "target": self.target,
            "manifest": self.manifest,
            "sequence": self.sequence,
        }


# ---------------------------------------------------------------- writing


def digest_of(raw: bytes) -> str:
    """Return the sha256 of bytes in OCI's notation."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def encode(document: Mapping[str, Any]) -> bytes:
    """Encode a document so that equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def blob_name(digest: str) -> str:
    """Return a blob's path in the layout."""
    return f"blobs/{digest.replace(':', '/')}"


def model_file(files: Iterable[str]) -> str:
    """Return the name of the model among a bundle's files. Raises MalformedBundle."""
    (name, *others) = [each for each in MODEL_FILES.values() if each in files] or [""]
    if not name or others:
        raise MalformedBundle(f"a bundle has one of {' and '.join(MODEL_FILES.values())}")
    return name


_PRECISION = {
    "fp32": {"precision": "float32"},
    "int8": {"precision": "int8", "quantization": "dynamic"},
}
"""By variant; that of a file as its author wrote it is not known."""


def model_config(
    name: str, version: str, variant: str, files: Mapping[str, Descriptor]
) -> dict[str, Any]:
    """Return the ModelPack configuration of a bundle."""
    kind = model_file(files).rpartition(".")[2]
    return {
        "descriptor": {"name": name, "version": version},
        "config": {"format": kind, **_PRECISION.get(variant, {})},
        "modelfs": {"type": "layers", "diffIds": [file.digest for file in files.values()]},
    }


def model_manifest(
    config: Descriptor, files: Mapping[str, Descriptor], annotations: Mapping[str, str]
) -> dict[str, Any]:
    """Return the ModelPack manifest of a bundle's files."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": MODEL,
        "config": config.to_json(),
        "layers": [file.to_json(annotations={FILE_PATH: name}) for name, file in files.items()],
        "annotations": dict(annotations),
    }


def referrer(kind: str, subject: Descriptor, *layers: Descriptor) -> dict[str, Any]:
    """Return the manifest of an artifact about another manifest."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": Descriptor.of(EMPTY, b"{}").to_json(),
        "layers": [layer.to_json() for layer in layers],
        "subject": subject.to_json(),
    }


def index(model: Descriptor, version: str, referrers: Mapping[str, Descriptor]) -> dict[str, Any]:
    """Return the index: the model manifest, then its referrers by artifact type."""
    named = {"org.opencontainers.image.ref.name": version}
    return {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            model.to_json(artifactType=MODEL, annotations=named),
            *(found.to_json(artifactType=kind) for kind, found in referrers.items()),
        ],
    }


# ---------------------------------------------------------------- reading


def read_index(raw: bytes) -> PublishedBundle:
    """Return the manifests that an index names. Raises MalformedBundle."""
    entries = _list(_object(raw, "index.json"), "manifests", "index.json")
    found = []
    for kind, what in ((MODEL, "model manifest"), (SIGSTORE, "signature")):
        of_kind = [it for it in entries if isinstance(it, dict) and it.get("artifactType") == kind]
        if len(of_kind) != 1:
            raise MalformedBundle(f"index.json must name one {what}")
        found.append(_descriptor(of_kind[0], f"index.json: {what}", MAX_DOCUMENT_BYTES))
    return PublishedBundle(*found)


def read_model_manifest(raw: bytes) -> dict[str, Descriptor]:
    """Return a bundle's files by name.

    Raises MalformedBundle for a name that is not part of this format.
    """
    what = "model manifest"
    document = _object(raw, what)
    if document.get("artifactType") != MODEL:
        raise MalformedBundle(f"{what}: has another artifactType")
    files: dict[str, Descriptor] = {}
    for layer in _list(document, "layers", what):
        annotations = layer.get("annotations") if isinstance(layer, dict) else None
        name = annotations.get(FILE_PATH) if isinstance(annotations, dict) else None
        if not isinstance(name, str) or name not in MEDIA_TYPES or name in files:
            raise MalformedBundle(f"{what}: lists a file twice, or a file that no bundle has")
        files[name] = _descriptor(layer, f"{what}: {name}", 2**40)
        if files[name].media_type != MEDIA_TYPES[name]:
            raise MalformedBundle(f"{what}: {name} has another media type")
    if not set(REQUIRED) <= files.keys():
        raise MalformedBundle(f"{what}: lacks one of {', '.join(REQUIRED)}")
    try:
        model_file(files)
    except MalformedBundle as error:
        raise MalformedBundle(f"{what}: {error}") from None
    return files


def read_annotations(raw: bytes) -> dict[str, str]:
    """Return a manifest's annotations; values that are not strings are omitted."""
    found = loads(raw).get("annotations")
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def read_signature_manifest(raw: bytes, subject: str) -> tuple[Descriptor, Descriptor]:
    """Return the descriptors of the Sigstore bundle and the release. Raises MalformedBundle."""
    what = "signature manifest"
    document = _object(raw, what)
    about = document.get("subject")
    if not isinstance(about, dict) or about.get("digest") != subject:
        raise MalformedBundle(f"{what}: refers to another manifest")
    found = [
        _descriptor(layer, what, MAX_DOCUMENT_BYTES) for layer in _list(document, "layers", what)
    ]
    if [layer.media_type for layer in found] != [SIGSTORE, RELEASE]:
        raise MalformedBundle(f"{what}: must hold a Sigstore bundle and a release")
    return found[0], found[1]


def read_release(raw: bytes) -> Release:
    """Parse a release document. Raises MalformedBundle."""
    document = _object(raw, "release")
    deployment, target = document.get("deployment"), document.get("target")
    manifest, sequence = document.get("manifest"), document.get("sequence")
    if not isinstance(deployment, str) or not isinstance(target, str):
        raise MalformedBundle("release: names no deployment and target")
    if not isinstance(manifest, str) or not _DIGEST.fullmatch(manifest):
        raise MalformedBundle("release: names no manifest")
    if type(sequence) is not int or not 0 <= sequence < 2**63:
        raise MalformedBundle("release: has no sequence")
    namespace, cluster = document.get("namespace", ""), document.get("cluster", "")
    if not isinstance(namespace, str) or not isinstance(cluster, str):
        raise MalformedBundle("release: its namespace or its cluster is not text")
    return Release(deployment, target, manifest, sequence, namespace, cluster)


def loads(raw: bytes) -> dict[str, Any]:
    """Parse one of our own documents; return an empty one if it is invalid."""
    try:
        return _object(raw, "")
    except MalformedBundle:
        return {}


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    # RecursionError: brackets nested a hundred thousand deep.
    except (ValueError, RecursionError):
        raise MalformedBundle(f"{what}: is not JSON") from None
    if not isinstance(document, dict):
        raise MalformedBundle(f"{what}: is not an object")
    return document


def _list(document: Mapping[str, Any], field: str, what: str) -> list[Any]:
    found = document.get(field)
    if not isinstance(found, list) or len(found) > 64:
        raise MalformedBundle(f"{what}: {field} is not a list of at most 64 entries")
    return found


def _descriptor(entry: Any, what: str, most: int) -> Descriptor:
    if not isinstance(entry, dict):
        raise MalformedBundle(f"{what}: is not a descriptor")
    kind, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    if not isinstance(kind, str):
        raise MalformedBundle(f"{what}: has no media type")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise MalformedBundle(f"{what}: has no sha256 digest")
    if type(size) is not int or not 0 <= size <= most:
        raise MalformedBundle(f"{what}: its size is not between 0 and {most}")
    return Descriptor(kind, digest, size)
