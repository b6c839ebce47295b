"""Signatures as a device verifies them: what model-signing accepts, and nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fourways_agent.errors import AgentConfigError, BundleRefused
from fourways_agent.trust import Documents, TrustedKeys
from fourways_runtime import bundle_layout as layout
from fourways_runtime.workloads.edge.signing import FileKey
from tests.kit.edge_plane import key_pair, public_half
from tests.kit.lazy import LazyModule

model_signing = LazyModule("model_signing")


def signed(folder: Path, manifest: bytes = b"{}", about: bytes | None = None) -> Documents:
    """Return documents signed by our key, as the build signs them."""
    digest = layout.digest_of(manifest if about is None else about)
    told = layout.encode(layout.Release("churn", "door", digest, 3, "shop").to_json())
    (folder / "signed").mkdir(parents=True, exist_ok=True)
    (folder / "signed" / layout.MANIFEST_FILE).write_bytes(manifest)
    (folder / "signed" / layout.RELEASE_FILE).write_bytes(told)
    (folder / "key.pem").write_bytes(key_pair()[0])
    signature = FileKey(folder / "key.pem").sign(folder / "signed", folder / layout.SIGNATURE_FILE)
    return Documents(manifest, told, signature)


def by_model_signing(folder: Path, documents: Documents) -> bool:
    """Tell whether the library itself accepts the documents with our key."""
    (folder / "signed" / layout.MANIFEST_FILE).write_bytes(documents.manifest)
    (folder / "signed" / layout.RELEASE_FILE).write_bytes(documents.release)
    (folder / layout.SIGNATURE_FILE).write_bytes(documents.signature)
    (folder / "key.pub.pem").write_bytes(key_pair()[1])
    plain = model_signing.hashing.Config().use_file_serialization(
        hashing_algorithm="sha256", allow_symlinks=False
    )
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(
        public_key=folder / "key.pub.pem"
    )
    try:
        verifier.set_hashing_config(plain).verify(folder / "signed", folder / layout.SIGNATURE_FILE)
    except Exception:  # noqa: BLE001  (its errors have no common base)
        return False
    return True


def ours(documents: Documents, *keys: bytes) -> bool:
    try:
        TrustedKeys.parse(b"".join(keys) or key_pair()[1]).verify(documents)
    except BundleRefused:
        return False
    return True


def other_key() -> bytes:
    return subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"],
        check=True,
        capture_output=True,
    ).stdout


def in_bundle(change: Callable[[dict[str, Any]], Any]) -> Callable[[Documents], Documents]:
    def changed(documents: Documents) -> Documents:
        bundle = json.loads(documents.signature)
        change(bundle)
        return Documents(documents.manifest, documents.release, json.dumps(bundle).encode())

    return changed


def in_payload(change: Callable[[dict[str, Any]], Any]) -> Callable[[Documents], Documents]:
    def changed(bundle: dict[str, Any]) -> None:
        envelope = bundle["dsseEnvelope"]
        payload = json.loads(base64.b64decode(envelope["payload"]))
        change(payload)
        envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()

    return in_bundle(changed)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


CHANGES: dict[str, Callable[[Documents], Documents]] = {
    "manifest": lambda it: Documents(it.manifest + b" ", it.release, it.signature),
    "release": lambda it: Documents(it.manifest, it.release + b" ", it.signature),
    "exchanged": lambda it: Documents(it.release, it.manifest, it.signature),
    "no JSON": lambda it: Documents(it.manifest, it.release, b"<html>"),
    "nested": lambda it: Documents(it.manifest, it.release, b"[" * 100_000),
    "a list": lambda it: Documents(it.manifest, it.release, b"[]"),
    "no envelope": in_bundle(lambda it: it.pop("dsseEnvelope")),
    "no signatures": in_bundle(lambda it: it["dsseEnvelope"].update(signatures=[])),
    "empty signature": in_bundle(lambda it: it["dsseEnvelope"]["signatures"][0].update(sig="")),
    "media type": in_bundle(lambda it: it.update(mediaType="application/json")),
    "payload type": in_bundle(lambda it: it["dsseEnvelope"].update(payloadType="text/plain")),
    "hint": in_bundle(lambda it: it["verificationMaterial"]["publicKey"].update(hint="00" * 32)),
    "payload": in_payload(lambda it: it["predicate"].update(resources=[])),
    "predicate type": in_payload(lambda it: it.update(predicateType="x")),
}


@pytest.mark.thorough
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_signed_is_refused_here_and_by_model_signing(
    tmp_path: Path, change: str
) -> None:
    documents = signed(tmp_path)
    assert (ours(documents), by_model_signing(tmp_path, documents)) == (True, True)
    other = CHANGES[change](documents)
    assert (ours(other), by_model_signing(tmp_path, other)) == (False, False)


def test_no_single_flipped_byte_of_the_signed_content_is_accepted(tmp_path: Path) -> None:
    documents = signed(tmp_path)
    keys = TrustedKeys.parse(key_pair()[1])
    accepted = []
    for at in range(len(documents.signature)):
        other = Documents(documents.manifest, documents.release, flipped(documents.signature, at))
        try:
            accepted.append((at, keys.verify(other)))
        except BundleRefused:
            continue
    genuine = keys.verify(documents)
    assert all(release == genuine for _, release in accepted), "only what nobody reads may differ"
    assert len(accepted) < len(documents.signature) / 10


def test_any_key_of_a_file_counts_so_that_keys_can_be_rotated(tmp_path: Path) -> None:
    documents = signed(tmp_path)
    new = public_half(other_key())
    assert ours(documents, new, key_pair()[1])
    assert ours(documents, key_pair()[1], new)
    assert not ours(documents, new)


def test_a_release_about_another_manifest_is_refused(tmp_path: Path) -> None:
    documents = signed(tmp_path, about=b"another")
    with pytest.raises(BundleRefused, match="refers to another manifest"):
        TrustedKeys.parse(key_pair()[1]).verify(documents)


def test_the_release_is_what_was_signed(tmp_path: Path) -> None:
    release = TrustedKeys.parse(key_pair()[1]).verify(signed(tmp_path))
    assert (release.namespace, release.deployment, release.target) == ("shop", "churn", "door")
    assert release.sequence == 3


@pytest.mark.parametrize(
    ("pem", "fault"),
    [
        (b"", "1 to 16 EC public keys"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key 1 .* not valid PEM"),
        (b"private", "1 to 16 EC public keys"),
        (b"rsa", "key 1 .* not an EC key"),
        (b"many", "1 to 16 EC public keys"),
    ],
)
def test_a_file_that_holds_no_public_key_is_named(pem: bytes, fault: str) -> None:
    if pem == b"private":
        pem = key_pair()[0]
    elif pem == b"rsa":
        made = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True)
        pem = subprocess.run(
            ["openssl", "rsa", "-pubout"], input=made.stdout, check=True, capture_output=True
        ).stdout
    elif pem == b"many":
        pem = key_pair()[1] * 17
    with pytest.raises(AgentConfigError, match=fault):
        TrustedKeys.parse(pem)


def test_documents_are_read_back_as_they_were(tmp_path: Path) -> None:
    documents = signed(tmp_path, b'{"\xff": 1}')
    assert Documents.decode(documents.encode()) == documents
    for raw in (b"", b"{}", b'{"manifest": 1}', documents.encode()[:-9]):
        with pytest.raises(layout.MalformedBundle):
            Documents.decode(raw)
