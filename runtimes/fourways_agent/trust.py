"""What a device trusts: bundles whose documents are signed by one of its keys.

The signature is a Sigstore bundle (v0.3) with a DSSE envelope around an in-toto statement, as
model-signing writes it; ``model_signing verify key`` accepts exactly what this module accepts. It
is verified before every start and every update, so the verifier is small: model-signing takes more
than a second and 60 MB to import (docs/decisions/2026-11-29-what-a-device-remembers.md).

Sources: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md,
https://github.com/sigstore/model-transparency (predicate ``model_signing/signature/v1.0``)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import MalformedBundle, Release

from .errors import AgentConfigError, BundleRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----")
_MOST_KEYS = 16


@dataclass(frozen=True, slots=True)
class Documents:
    """The small documents of one release, byte for byte as published."""

    manifest: bytes
    release: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """Digest of the model manifest, which identifies the bundle."""
        return layout.digest_of(self.manifest)

    def encode(self) -> bytes:
        """Encode the documents as one file."""
        return layout.encode(
            {
                name: base64.b64encode(getattr(self, name)).decode()
                for name in ("manifest", "release", "signature")
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> Documents:
        """Decode the output of :meth:`encode`. Raises MalformedBundle."""
        found = layout.loads(raw)
        try:
            return cls(
                *(
                    base64.b64decode(found[name], validate=True)
                    for name in ("manifest", "release", "signature")
                )
            )
        except (KeyError, TypeError, ValueError):
            raise MalformedBundle("the documents cannot be read") from None


class TrustedKeys:
    """The trusted public keys: a bundle must be signed with any one of them."""

    def __init__(self, keys: Sequence[EllipticCurvePublicKey]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def parse(cls, pem: bytes) -> TrustedKeys:
        """Read a PEM file of one or more EC public keys. Raises AgentConfigError."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        blocks = _KEY.findall(pem)
        if not 0 < len(blocks) <= _MOST_KEYS:
            raise AgentConfigError(
                f"the key file must hold 1 to {_MOST_KEYS} EC public keys in PEM"
                " (-----BEGIN PUBLIC KEY-----)"
            )
        keys = []
        for at, block in enumerate(blocks, 1):
            try:
                key = load_pem_public_key(block)
            except Exception:  # noqa: BLE001  (its errors have no common base)
                raise AgentConfigError(f"key {at} of the key file is not valid PEM") from None
            if not isinstance(key, EllipticCurvePublicKey) or key.curve.key_size not in _HASHES:
                raise AgentConfigError(
                    f"key {at} of the key file is not an EC key (P-256, P-384, P-521)"
                )
            keys.append(key)
        return cls(keys)

    def verify(self, documents: Documents) -> Release:
        """Return the release that the documents sign. Raises BundleRefused.

        The signature must be by one of the keys, over exactly this manifest and this release, and
        the release must refer to this manifest.
        """
        try:
            resources = _resources(self._payload(documents.signature))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError):
            raise BundleRefused("the signature is not a Sigstore bundle of model-signing") from None
        signed = {
            layout.MANIFEST_FILE: hashlib.sha256(documents.manifest).hexdigest(),
            layout.RELEASE_FILE: hashlib.sha256(documents.release).hexdigest(),
        }
        if resources != signed:
            raise BundleRefused("the signature does not cover these documents")
        try:
            release = layout.read_release(documents.release)
        except MalformedBundle as error:
            raise BundleRefused(str(error)) from None
        if release.manifest != documents.digest:
            raise BundleRefused("the release refers to another manifest")
        return release

    def _payload(self, raw: bytes) -> bytes:
        """Return the signed bytes. Raises BundleRefused if none of the keys has signed them."""
        bundle: dict[str, Any] = json.loads(raw)
        if bundle["mediaType"] != layout.SIGSTORE:
            raise ValueError
        envelope = bundle["dsseEnvelope"]
        if envelope["payloadType"] != _PAYLOAD_TYPE:
            raise ValueError
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        hint = bundle["verificationMaterial"]["publicKey"].get("hint")
        for key in self._keys:
            if hint in (None, "", _hint(key)) and _signed(key, signature, payload):
                return payload
        raise BundleRefused("the signature was not made with a key that this device trusts")


def _resources(payload: bytes) -> dict[str, str]:
    """Return the signed files, name to sha256. Raises ValueError, KeyError, TypeError."""
    statement = json.loads(payload)
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise ValueError
    predicate = statement["predicate"]
    if predicate["serialization"]["method"] != "files":
        raise ValueError
    root, found = hashlib.sha256(), {}
    for resource in predicate["resources"]:
        if resource["algorithm"] != "sha256" or resource["name"] in found:
            raise ValueError
        root.update(bytes.fromhex(resource["digest"]))
        found[str(resource["name"])] = str(resource["digest"])
    (subject,) = statement["subject"]
    if subject["digest"]["sha256"] != root.hexdigest():
        raise ValueError
    return found


def _signed(key: EllipticCurvePublicKey, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    # DSSE's pre-authentication encoding: type and length are signed with the payload.
    signed_header = f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode()
    try:
        name = _HASHES[key.curve.key_size]
        key.verify(signature, signed_header + payload, ECDSA(getattr(hashes, name)()))
    except InvalidSignature:
        return False
    return True


_HASHES = {256: "SHA256", 384: "SHA384", 521: "SHA512"}


def _hint(key: EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()
