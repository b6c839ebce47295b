"""A signing key that never leaves an HSM or a KMS: model-signing asks it by PKCS#11.

The Secret names the key by a URI of RFC 7512 (``pkcs11-uri``) and has the PIN (``pkcs11-pin``).
The driver is the HSM's, a library in the image of the container that signs; the admin chooses the
image. Of the URI's query, only the driver's path is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError, Unavailable

from ..place_watch import HSM, PlaceWatch

URI_FILE, PIN_FILE = "pkcs11-uri", "pkcs11-pin"
_EXTRAS = "edge", "pkcs11"
_MAX_BYTES = 4096
_EXAMPLE = "pkcs11:token=TOKEN;object=KEY?module-path=/usr/lib/DRIVER.so"
_PATH = frozenset({"token", "object", "id", "slot-id", "type", "serial", "manufacturer", "model"})

_LOGIN = frozenset({"CKR_PIN_INCORRECT", "CKR_PIN_LOCKED", "CKR_PIN_EXPIRED", "CKR_PIN_LEN_RANGE"})


class HsmKey:
    """A private key in an HSM, and an open session with it."""

    def __init__(self, folder: Path, where: str, places: PlaceWatch) -> None:
        """``folder`` is the mounted Secret; ``where`` names it in messages.

        ``places`` ends the process where the driver does not return.

        Raises:
            ConfigError: the URI, the PIN or the key is not usable.
            Unavailable: the HSM does not answer.

        """
        self._where, self._places = where, places
        places.limit(HSM)
        uri, driver = _parsed(_text(folder / URI_FILE, where), where)
        pin = folder / PIN_FILE
        query = f"module-path={quote(driver)}"
        if pin.exists():
            query += f"&pin-value={quote(_text(pin, where), safe='')}"
        try:
            from model_signing.signing import Config
        except ImportError:
            raise ConfigError(f"signing needs a package: {install_command(*_EXTRAS)}") from None
        config: Any = Config
        try:
            with places.step(HSM, "the login"):
                self._config = config().use_pkcs11_signer(pkcs11_uri=f"{uri}?{query}")
        except RuntimeError:
            raise ConfigError(
                f"a key in an HSM needs a package: {install_command(*_EXTRAS)}"
            ) from None
        except Exception as error:  # noqa: BLE001  (its errors may quote the URI, with the PIN)
            # Its frames hold the session open, and the PIN.
            raise self._fault(error.with_traceback(None), driver) from None
        curve = self._config._signer.public_key().curve.name
        if curve != "secp256r1":
            del self._config
            raise ConfigError(f"{where}: the key in the HSM is not a P-256 key but {curve}")

    def sign(self, folder: Path, to: Path) -> bytes:
        """See SigningKey."""
        try:
            with self._places.step(HSM, "signing"):
                self._config.sign(folder, to)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  (as above)
            raise self._fault(error.with_traceback(None), "the driver") from None
        return to.read_bytes()

    def _fault(self, error: Exception, driver: str) -> ConfigError | Unavailable:
        """Say what is wrong; an error's own text is shown only as the name of a code."""
        code = _code(error)
        if code in _LOGIN:
            return ConfigError(f"{self._where}: the HSM refuses the PIN in {PIN_FILE} ({code})")
        if code:
            return Unavailable(f"{self._where}: the HSM does not sign ({code})")
        text = str(error)
        if text.startswith(("Could not find a token", "The token in slot")):
            return ConfigError(f"{self._where}: the HSM has no token of that name ({URI_FILE})")
        if text.startswith("Could not find any object"):
            return ConfigError(
                f"{self._where}: the token has no pair of keys of that name or id ({URI_FILE}); "
                "the public key must be in the token too"
            )
        return ConfigError(
            f"{self._where}: {driver} cannot be used ({type(error).__name__}): it must be a "
            "PKCS#11 library in the image that signs (signing.image of the chart)"
        )


def _code(error: Exception) -> str:
    """Return the name of a code of PKCS#11, such as CKR_PIN_INCORRECT; empty if it is none."""
    value = getattr(error, "value", None)
    if not isinstance(value, int) or value < 0:  # negative: of the wrapper, not of the HSM
        return ""
    try:
        from PyKCS11 import CKR
    except ImportError:
        return ""
    name = CKR.get(value)
    return name if isinstance(name, str) else f"code {value:#x}"


def _text(file: Path, where: str) -> str:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{where}: the key {file.name} cannot be read as text") from None
    if not text:
        raise ConfigError(f"{where}: the key {file.name} is empty")
    return text


def _parsed(text: str, where: str) -> tuple[str, str]:
    """Return the URI without its query, and the driver's path. Raises ConfigError."""
    address, _, query = text.partition("?")
    names = [part.partition("=") for part in address.removeprefix("pkcs11:").split(";")]
    named = {name for name, _, value in names if value}
    if (
        not address.startswith("pkcs11:")
        or len(named) != len(names)
        or not named <= _PATH
        or not named & {"token", "slot-id"}
        or not named & {"object", "id"}
    ):
        raise ConfigError(f"{where}: {URI_FILE} does not name a token and a key: {_EXAMPLE}")
    asked = dict(part.partition("=")[::2] for part in query.split("&"))
    driver = unquote(asked.pop("module-path", ""))
    if asked or not driver.startswith("/"):
        raise ConfigError(
            f"{where}: {URI_FILE} must have the driver's path and nothing else after the question "
            f"mark ({_EXAMPLE}); the PIN is the key {PIN_FILE}"
        )
    return address, driver
