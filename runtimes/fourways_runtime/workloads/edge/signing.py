"""Sign bundles with model-signing: an EC key, a Sigstore bundle (v0.3, DSSE).

The signature covers a folder of two documents: the OCI manifest, byte for byte, and the release.
The manifest names every file by its sha256, so a device can authenticate a bundle before it
downloads the model. Anyone can verify a signature:
``model_signing verify key FOLDER --signature FILE --public_key KEY.pub.pem``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fourways_api import SecretReference
from fourways_api.runtime_config import Paths
from fourways_runtime.errors import ConfigError
from fourways_runtime.io.mounted_secret import MountedSecret

KEY_FILE = "signing-key.pem"
_MAKE_ONE = "openssl ecparam -name prime256v1 -genkey -noout -out signing-key.pem"


def key_file(secret: SecretReference, paths: Paths) -> Path:
    """Validate the mounted signing key and return its path.

    Raises:
        ConfigError: there is no usable key.
        SecretRefused: the Secret does not list the deployment.

    """
    mounted = MountedSecret.of(secret, paths)
    file = mounted.folder / KEY_FILE
    where = f"edge.signing: the Secret {secret.secret_name}"
    try:
        raw = file.read_bytes()
    except OSError:
        raise ConfigError(
            f"{where} has no readable key {KEY_FILE}; make one: {_MAKE_ONE}"
        ) from None
    mounted.for_deployment()
    _check_key(raw, f"{where}: {KEY_FILE}")
    return file


def _check_key(raw: bytes, where: str) -> None:
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ConfigError("signing needs a package; install fourways[edge]") from None
    try:
        key = load_pem_private_key(raw, None)
    except TypeError:
        raise ConfigError(f"{where} is encrypted; store it in the Secret unencrypted") from None
    except Exception:  # noqa: BLE001  (its errors quote what they read: the key)
        raise ConfigError(f"{where} is not a private key in PEM; make one: {_MAKE_ONE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ConfigError(f"{where} is not a P-256 key; make one: {_MAKE_ONE}")


def sign(folder: Path, key: Path, to: Path) -> bytes:
    """Sign the files of a folder; write the signature to ``to`` and return it."""
    try:
        from model_signing.signing import Config
    except ImportError:
        raise ConfigError("signing needs a package; install fourways[edge]") from None
    config: Any = Config  # its constructor has no types
    config().use_elliptic_key_signer(private_key=key).sign(folder, to)
    return to.read_bytes()
