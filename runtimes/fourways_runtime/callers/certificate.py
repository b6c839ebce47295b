"""The server's certificate, mounted from a Secret of type ``kubernetes.io/tls``.

Owns the TLS context. A renewed certificate, such as cert-manager's, holds for new connections as
soon as it is mounted; one that cannot be read leaves the context as it is.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from fourways_runtime.errors import ConfigError
from fourways_runtime.mounted import state_of

logger = logging.getLogger("fourways.callers")


class Certificate:
    """A TLS context that follows the mounted files."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if there is no certificate with its key in the folder."""
        self._chain, self._key = folder / "tls.crt", folder / "tls.key"
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(["http/1.1"])
        self._state = state_of((self._chain, self._key))
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificate in {folder} cannot be used ({_why(error)}): it needs tls.crt and "
                "tls.key, as a Secret of type kubernetes.io/tls has them"
            ) from None

    def reread(self) -> None:
        """Use the files again if they have changed. Blocks."""
        state = state_of((self._chain, self._key))
        if state == self._state:
            return
        try:
            # Checked in a context of its own first: loading half a pair would break this one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._chain, self._key)
            self._load()
        except (OSError, ssl.SSLError) as error:
            logger.warning(
                "the renewed certificate cannot be used; the earlier one stays",
                extra={"why": _why(error)},
            )
            return
        self._state = state
        logger.info("uses a renewed certificate")

    def _load(self) -> None:
        self.context.load_cert_chain(self._chain, self._key)


def _why(error: OSError | ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not a certificate with its key").lower().replace("_", " ")
    return error.strerror or type(error).__name__
