"""The identity of model servers: the certificate that each shows, and how gateways verify it.

Owns both sides. A model server judges its own certificate as the gateway will, by a handshake in
memory: so it can say what is wrong with it and in which Secret, which a gateway cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

from fourways_api.runtime_config import ServerTls
from fourways_runtime.errors import CertificateInvalid, ConfigError
from fourways_runtime.mounted import FileState, state_of
from fourways_runtime.process import in_thread

from .certificate import Certificate

LOOK_SECONDS = 5.0
"""Time between two looks at the mounted files."""

logger = logging.getLogger("fourways.callers")


class ServedCertificate:
    """A model server's certificate, and what is wrong with it."""

    def __init__(self, tls: ServerTls) -> None:
        """Raises ConfigError if there is no certificate with its key in the folder."""
        self._tls = tls
        try:
            self._certificate = Certificate(Path(tls.folder))
        except ConfigError as error:
            raise CertificateInvalid(f"{error} (Secret {tls.secret})") from None
        self.fault = self._judged()

    @property
    def context(self) -> ssl.SSLContext:
        """The context of the listener; a renewed certificate holds for new connections."""
        return self._certificate.context

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Read the mounted files again when they change, until cancelled."""
        while True:
            await sleep(LOOK_SECONDS)
            await in_thread(self.look, "certificate")

    def look(self) -> None:
        """Use renewed files, and judge what is used now. Blocks."""
        self._certificate.reread()
        before, self.fault = self.fault, self._judged()
        if self.fault is not None and str(self.fault) != str(before):
            logger.warning("%s", self.fault)

    def _judged(self) -> CertificateInvalid | None:
        tls = self._tls
        try:
            why = refusal(self.context, _trusting(Path(tls.authority_file)), tls.host)
        except OSError as error:
            return CertificateInvalid(
                f"Secret {tls.authority_secret}: gateways cannot verify model servers, because its "
                f"key ca.crt cannot be used ({_why(error)}): add the authority's certificate there"
            )
        if why is None:
            return None
        return CertificateInvalid(
            f"Secret {tls.secret}: gateways do not accept the certificate for {tls.host} ({why}): "
            f"renew it, or have one issued for this name by the authority in ca.crt of Secret "
            f"{tls.authority_secret}"
        )


class Authority:
    """The authority by which a gateway verifies model servers. Use it only on the event loop."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._state: tuple[FileState, ...] = ()
        self._context: ssl.SSLContext | None = None
        self._look_at = 0.0

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; a replaced file holds within seconds.

        A file that cannot be used leaves the earlier authority as it is. Raises OSError if there
        has been none.
        """
        now = monotonic()
        if self._context is None or now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._read()
        if self._context is None:
            raise OSError("no authority")
        return self._context

    def _read(self) -> None:
        state = state_of((self._file,))
        if self._context is not None and state == self._state:
            return
        try:
            self._context = _trusting(self._file)
        except OSError as error:
            logger.warning(
                "model servers cannot be verified: ca.crt of their Secret cannot be used",
                extra={"why": _why(error), "keeps_the_earlier": self._context is not None},
            )
            return
        self._state = state


def refusal(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """Return why a client does not accept a server's certificate for a name; None if it does.

    The two shake hands in memory, so the judgement is that of the library that gateways use.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=host)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):  # a handshake takes two rounds
        try:
            asking.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return _why(error)
        else:
            return None
        with contextlib.suppress(ssl.SSLWantReadError):
            answering.do_handshake()
    return "the handshake does not end"


def _trusting(file: Path) -> ssl.SSLContext:
    """Return the context of a client that trusts only a file's authorities. Raises OSError."""
    return ssl.create_default_context(cafile=str(file))


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not a certificate").lower().replace("_", " ")
    return error.strerror or type(error).__name__
