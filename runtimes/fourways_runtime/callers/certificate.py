"""The server's certificate, mounted from a Secret of type ``kubernetes.io/tls``.

Owns the reading of the two files, for every listener, and the TLS context of the HTTP servers. A
renewed certificate, such as cert-manager's, holds for new connections as soon as it is mounted; one
that cannot be used leaves the earlier one as it is.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from fourways_runtime.errors import ConfigError
from fourways_runtime.mounted import state_of

logger = logging.getLogger("fourways.callers")


class MountedCertificate:
    """A certificate and its key, read together from a folder, and a context of HTTP with them.

    ``chain``, ``key`` and ``context`` are replaced, never changed. Not thread-safe, but that
    ``context`` may be read while another thread is in :meth:`renewed`.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if there is no certificate with its key in the folder."""
        self.chain_file, self.key_file = folder / "tls.crt", folder / "tls.key"
        try:
            self._read()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificate in {folder} cannot be used ({_why(error)}): it needs tls.crt and "
                "tls.key, as a Secret of type kubernetes.io/tls has them"
            ) from None

    def renewed(self) -> bool:
        """Read the files again if they have changed; tell whether they hold a new pair. Blocks."""
        if state_of((self.chain_file, self.key_file)) == self._state:
            return False
        try:
            self._read()
        except (OSError, ssl.SSLError) as error:
            logger.warning(
                "the renewed certificate cannot be used; the earlier one stays",
                extra={"why": _why(error)},
            )
            return False
        logger.info("uses a renewed certificate")
        return True

    def _read(self) -> None:
        files = self.chain_file, self.key_file
        state = state_of(files)
        # In a context of its own: loading half a pair would break the one in use.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*files)
        chain, key = (file.read_bytes() for file in files)
        if state_of(files) != state:
            raise OSError("changed while it was read")
        self.chain, self.key, self.context, self._state = chain, key, context, state


class Certificate:
    """A TLS context for a listener, whose new connections get the pair that is mounted.

    A listener keeps one context, and OpenSSL reads a context's certificate and key one after the
    other in each handshake. So no context is changed once it is in use: a handshake is given the
    context of the whole pair that holds when it begins.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if there is no certificate with its key in the folder."""
        self._mounted = MountedCertificate(folder)
        self.context = self._mounted.context
        # OpenSSL calls it in every handshake, also where the client names no server.
        self.context.sni_callback = self._give_current

    def reread(self) -> None:
        """Use the files again if they have changed. Blocks."""
        self._mounted.renewed()

    def _give_current(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> None:
        connection.context = self._mounted.context


def _why(error: OSError | ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not a certificate with its key").lower().replace("_", " ")
    return error.strerror or str(error) or type(error).__name__
