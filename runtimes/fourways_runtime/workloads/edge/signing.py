"""Sign bundles with model-signing: an EC key, a Sigstore bundle (v0.3, DSSE).

The signature covers a folder of two documents: the OCI manifest, byte for byte, and the release.
The manifest names every file by its sha256, so a device can authenticate a bundle before it
downloads the model. Anyone can verify a signature:
``model_signing verify key FOLDER --signature FILE --public_key KEY.pub.pem``.

The private key is a file of the Secret, or it stays in an HSM or a KMS (:mod:`.hsm_key`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from fourways_api import SecretReference
from fourways_api.installing import install_command
from fourways_api.runtime_config import Paths
from fourways_runtime.errors import ConfigError
from fourways_runtime.io.mounted_secret import MountedSecret

from ..place_watch import PlaceWatch
from .hsm_key import URI_FILE, HsmKey

KEY_FILE = "signing-key.pem"
_MAKE_ONE = "openssl ecparam -name prime256v1 -genkey -noout -out signing-key.pem"


class SigningKey(Protocol):
    """A private key that signs bundles."""

    def sign(self, folder: Path, to: Path) -> bytes:
        """Sign the files of a folder; write the signature to ``to`` and return it.

        Raises WorkloadError.
        """
        ...


def signing_key(
    secret: SecretReference, paths: Paths, places: PlaceWatch | None = None
) -> SigningKey:
    """Return the key that the mounted Secret holds or names, once it is known to be usable.

    ``places`` watches the calls into an HSM.

    Raises:
        ConfigError: there is no usable key, or there are two.
        SecretRefused: the Secret does not list the deployment.
        Unavailable: the HSM does not answer.

    """
    mounted = MountedSecret.of(secret, paths)
    file = mounted.folder / KEY_FILE
    where = f"edge.signing: the Secret {secret.secret_name}"
    if (mounted.folder / URI_FILE).exists():
        if file.exists():
            raise ConfigError(f"{where} has both {KEY_FILE} and {URI_FILE}; remove one of them")
        return HsmKey(mounted.for_deployment(), where, places or PlaceWatch())
    try:
        raw = file.read_bytes()
    except OSError:
        raise ConfigError(
            f"{where} has no readable key {KEY_FILE}; make one: {_MAKE_ONE}"
        ) from None
    mounted.for_deployment()
    _check_key(raw, f"{where}: {KEY_FILE}")
    return FileKey(file)


def _check_key(raw: bytes, where: str) -> None:
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ConfigError(f"signing needs a package: {install_command('edge')}") from None
    try:
        key = load_pem_private_key(raw, None)
    except TypeError:
        raise ConfigError(f"{where} is encrypted; store it in the Secret unencrypted") from None
    except Exception:  # noqa: BLE001  (its errors quote what they read: the key)
        raise ConfigError(f"{where} is not a private key in PEM; make one: {_MAKE_ONE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ConfigError(f"{where} is not a P-256 key; make one: {_MAKE_ONE}")


class FileKey:
    """A private key in a file of the mounted Secret."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def sign(self, folder: Path, to: Path) -> bytes:
        """See SigningKey."""
        try:
            from model_signing.signing import Config
        except ImportError:
            raise ConfigError(f"signing needs a package: {install_command('edge')}") from None
        config: Any = Config  # its constructor has no types
        config().use_elliptic_key_signer(private_key=self._file).sign(folder, to)
        return to.read_bytes()
