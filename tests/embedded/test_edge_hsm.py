"""Bundles signed with a key that stays in an HSM: SoftHSM, asked by PKCS#11 as any other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asn1crypto.core import OctetString
from asn1crypto.keys import ECDomainParameters
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fourways_agent.trust import Documents, TrustedKeys
from fourways_api import SecretReference
from fourways_api.runtime_config import EdgeConfig, Paths
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import WorkloadError
from fourways_runtime.workloads.edge.build import build
from fourways_runtime.workloads.edge.signing import signing_key
from tests.kit.edge_plane import blob, document, edge_config, published
from tests.kit.edge_rig import unmeasured
from tests.kit.secret_files import secret_folder
from tools.cluster.errors import ClusterError
from tools.servers.softhsm import DRIVER, new_token, softhsm

pytestmark = pytest.mark.embedded

PIN = "4711-canary"
URI = f"pkcs11:token=release-keys;object=release?module-path={DRIVER}"


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """A token with three keys; yields the public halves by label."""
    try:
        softhsm()
    except ClusterError as error:
        pytest.skip(str(error))
    environment = new_token(tmp_path_factory.mktemp("hsm"), "release-keys", PIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", environment["SOFTHSM2_CONF"])
        yield {
            "release": new_key("release", b"\x01", "secp256r1"),
            "large": new_key("large", b"\x02", "secp384r1"),
        }


def new_key(label: str, number: bytes, curve: str) -> bytes:
    """Make a pair of keys in the token; return its public half, PEM."""
    import PyKCS11
    from PyKCS11 import LowLevel as Low

    library = PyKCS11.PyKCS11Lib()
    library.load(str(DRIVER))
    (slot,) = (s for s in library.getSlotList() if "release-keys" in library.getTokenInfo(s).label)
    session = library.openSession(slot, Low.CKF_SERIAL_SESSION | Low.CKF_RW_SESSION)
    session.login(PIN)
    common = [(Low.CKA_LABEL, label), (Low.CKA_ID, number), (Low.CKA_TOKEN, True)]
    parameters = ECDomainParameters(name="named", value=curve).dump()
    public, _ = session.generateKeyPair(
        [*common, (Low.CKA_EC_PARAMS, parameters), (Low.CKA_VERIFY, True)],
        [*common, (Low.CKA_SIGN, True), (Low.CKA_SENSITIVE, True), (Low.CKA_EXTRACTABLE, False)],
        PyKCS11.MechanismECGENERATEKEYPAIR,
    )
    (raw,) = session.getAttributeValue(public, [Low.CKA_EC_POINT])
    point = OctetString.load(bytes(raw)).native
    session.logout()
    session.closeSession()
    known = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1()}
    key = ec.EllipticCurvePublicKey.from_encoded_point(known[curve], point)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def config_with(root: Path, **secret: str) -> EdgeConfig:
    made = edge_config(root)
    folder = root / "secrets" / "device-key"
    (folder / "signing-key.pem").unlink()
    secret_folder(folder, "*", "", **secret)
    return made


def documents(place: Path) -> Documents:
    """Read what a device verifies of a published bundle."""
    index = json.loads((place / layout.INDEX_FILE).read_bytes())
    manifests: list[dict[str, Any]] = index["manifests"]
    (signed,) = (m for m in manifests if m.get("artifactType") == layout.SIGSTORE)
    model = next(m for m in manifests if "artifactType" not in m or m is manifests[0])
    found = document(place, signed["digest"])
    by_kind = {layer["mediaType"]: blob(place, layer["digest"]) for layer in found["layers"]}
    return Documents(
        blob(place, model["digest"]).read_bytes(),
        by_kind[layout.RELEASE].read_bytes(),
        by_kind[layout.SIGSTORE].read_bytes(),
    )


def test_a_device_trusts_what_the_hsm_signs(hsm: dict[str, bytes], tmp_path: Path) -> None:
    """The signing is a process, as in a Job's pod; the PIN of the Secret ends with a line."""
    made = config_with(tmp_path, **{"pkcs11-uri": f"{URI}\n", "pkcs11-pin": f"{PIN}\n"})
    with unmeasured():
        build(made)
    environment = {**os.environ, "FOURWAYS_CONFIG": json.dumps(made.to_json())}
    done = subprocess.run(
        [sys.executable, "-m", "fourways_runtime", "edge-sign"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert PIN not in done.stderr + (tmp_path / "last-words").read_text("utf-8")
    found = documents(published(tmp_path))
    release = TrustedKeys.parse(hsm["release"]).verify(found)
    assert release.deployment == "churn"
    with pytest.raises(Exception, match="sign"):
        TrustedKeys.parse(new_key("other", b"\x09", "secp256r1")).verify(found)


def refusal(root: Path, **secret: str) -> str:
    folder = root / "secrets"
    secret_folder(folder / "key", "*", "", **secret)
    paths = Paths(secrets_root=str(folder), deployment="churn")
    with pytest.raises(WorkloadError) as caught:
        signing_key(SecretReference(secret_name="key"), paths)
    assert PIN not in str(caught.value)
    assert str(caught.value).startswith("edge.signing: the Secret key")
    return f"{caught.value.reason}: {caught.value}"


@pytest.mark.parametrize(
    ("uri", "pin", "words"),
    [
        (URI, "0000", "ConfigError: .*refuses the PIN in pkcs11-pin .CKR_PIN_INCORRECT"),
        (URI, "", "ConfigError: .*pkcs11-pin is empty"),
        (URI.replace("release-keys", "none"), PIN, "no token of that name"),
        (URI.replace("object=release", "object=none"), PIN, "no pair of keys of that name"),
        (URI.replace("object=release", "object=large"), PIN, "not a P-256 key but secp384r1"),
        (URI.replace(".so", ".os"), PIN, "must be a PKCS#11 library in the image that signs"),
        (URI.replace(str(DRIVER), "/etc/passwd"), PIN, "must be a PKCS#11 library in the image"),
        (f"{URI}&pin-value={PIN}", PIN, "nothing else after the question mark"),
        (f"{URI}&pin-source=file:/etc/passwd", PIN, "nothing else after the question mark"),
        ("pkcs11:object=release", PIN, "does not name a token and a key"),
        ("pkcs11:token=release-keys", PIN, "does not name a token and a key"),
        (URI.replace(";", ";pin-value=1;"), PIN, "does not name a token and a key"),
        ("https://kms.example/key", PIN, "does not name a token and a key"),
        (URI.partition("?")[0], PIN, "must have the driver's path"),
    ],
)
def test_what_cannot_sign_is_named_before_anything_is_signed(
    hsm: dict[str, bytes], tmp_path: Path, uri: str, pin: str, words: str
) -> None:
    told = refusal(tmp_path, **{"pkcs11-uri": uri, "pkcs11-pin": pin})
    assert re.search(words, told), told


def test_a_secret_with_two_keys_is_refused(hsm: dict[str, bytes], tmp_path: Path) -> None:
    values = {"pkcs11-uri": URI, "pkcs11-pin": PIN, "signing-key.pem": "x"}
    assert "has both signing-key.pem and pkcs11-uri" in refusal(tmp_path, **values)


def test_an_hsm_signs_for_the_listed_deployments(hsm: dict[str, bytes], tmp_path: Path) -> None:
    secret_folder(tmp_path / "key", "other", "", **{"pkcs11-uri": URI, "pkcs11-pin": PIN})
    mine, other = (Paths(secrets_root=str(tmp_path), deployment=d) for d in ("mine", "other"))
    with pytest.raises(WorkloadError, match="not for the deployment mine"):
        signing_key(SecretReference(secret_name="key"), mine)
    assert signing_key(SecretReference(secret_name="key"), other)
