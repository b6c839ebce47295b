"""The gateway as seen from a device: size-limited documents and blobs over HTTP.

Everything received is untrusted until its digest has been checked: redirects are not followed,
declared lengths are not believed, and a body that exceeds the expected size is cut off. A download
that was interrupted by a network failure is resumed.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from fourways_runtime import folder_writer
from fourways_runtime.bundle_layout import Descriptor, blob_name, digest_of

from . import files
from .errors import AgentConfigError, BundleRefused, GatewayUnreachable

if TYPE_CHECKING:
    from .state import DeviceSettings

CHUNK = 1 << 18
STALL_SECONDS = 20.0
"""Seconds without data after which the device stops waiting for the gateway."""

MAX_ANSWER_BYTES = 2**12
"""Bytes of the response to a report that are read."""

SLOWEST_BYTES = 2**12
"""Minimum speed of a download in bytes per second; a slower one is aborted."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


def opener(ca_file: str = "") -> urllib.request.OpenerDirector:
    """Return a URL opener that follows no redirects.

    ``ca_file``: only servers with a certificate from these authorities are asked. Raises
    AgentConfigError if the file cannot be read.
    """
    if not ca_file:
        return urllib.request.build_opener(_NoRedirect)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError):
        raise AgentConfigError("--ca-file: the file has no certificates that can be read") from None
    return urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))


def check_address(gateway: str, *, insecure: bool) -> None:
    """Check a gateway's address. Raises AgentConfigError.

    Without TLS, whoever is between device and gateway reads the device's key and the entity keys it
    asks for, and decides the values of device features, which are not signed.
    """
    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", gateway):
        raise AgentConfigError(
            "--gateway must be an https URL, such as https://gateway.example.com"
        )
    if gateway.startswith("http:") and not insecure and not _is_loopback(gateway):
        raise AgentConfigError(
            "--gateway must be an https URL; --insecure allows http, where the network can read "
            "this device's API key and change the inputs that the gateway returns (bundles are "
            "verified in either case)"
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Remote:
    """The folder of one deployment's bundles for one kind of device."""

    def __init__(
        self,
        gateway: str,
        deployment: str,
        target: str,
        credentials: Callable[[], dict[str, str]] = dict,
        ca_file: str = "",
    ) -> None:
        """Check the address. ``credentials`` returns the header that identifies this device.

        Raises AgentConfigError if the address is not an http or https URL, or the authorities
        cannot be read.
        """
        check_address(gateway, insecure=True)
        self._base = f"{gateway.rstrip('/')}/bundles/{deployment}/{target}"
        self._opener = opener(ca_file)
        self._credentials = credentials

    @classmethod
    def of(cls, settings: DeviceSettings) -> Self:
        """Return the folder that a device's settings name. Raises AgentConfigError."""
        return cls(
            settings.gateway,
            settings.deployment,
            settings.target,
            settings.credentials,
            settings.ca_file,
        )

    def document(self, name: str, most: int) -> bytes:
        """Return a small file. Raises BundleRefused if it is too long, GatewayUnreachable."""
        deadline = monotonic() + STALL_SECONDS
        with self._opened(name, {}) as answer:
            raw = b""
            while chunk := answer.read1(CHUNK):
                raw += chunk
                if len(raw) > most:
                    raise BundleRefused(f"{name} is longer than {most} bytes")
                if monotonic() > deadline:
                    raise GatewayUnreachable(
                        f"the gateway did not respond within {STALL_SECONDS:g} s"
                    )
        return raw

    def report_records(self, report: bytes) -> float:
        """Send counts of records; return the gateway's window in seconds.

        Raises GatewayUnreachable if it does not take them.
        """
        with self._opened("drift", {"Content-Type": "application/json"}, report) as answer:
            raw = answer.read(MAX_ANSWER_BYTES)
        try:
            return float(dict(json.loads(raw))["window_seconds"])
        except (ValueError, TypeError, LookupError):
            raise GatewayUnreachable("the gateway's response to a report is invalid") from None

    def blob(self, wanted: Descriptor) -> bytes:
        """Return a small blob. Raises BundleRefused if it does not match its digest."""
        raw = self.document(blob_name(wanted.digest), wanted.size)
        if len(raw) != wanted.size or digest_of(raw) != wanted.digest:
            raise BundleRefused(f"blob {wanted.digest}: its content does not have this digest")
        return raw

    def download(self, wanted: Descriptor, file: Path) -> None:
        """Download a blob to ``file``, resuming ``file.part``; rename it once it is verified.

        Raises BundleRefused if it does not match its digest, GatewayUnreachable, NoSpace.
        """
        part = part_of(file)
        resumed = _size(part) > 0
        self._fetch(wanted, part)
        if _digest(part) != wanted.digest:
            files.delete(part)
            if not resumed:
                raise BundleRefused(f"blob {wanted.digest}: its content does not have this digest")
            # A partial file left by a crash may be torn: only a complete download can be blamed.
            self._fetch(wanted, part)
            if _digest(part) != wanted.digest:
                files.delete(part)
                raise BundleRefused(f"blob {wanted.digest}: its content does not have this digest")
        files.rename(part, file)

    def _fetch(self, wanted: Descriptor, part: Path) -> None:
        have = _size(part)
        if have > wanted.size:
            files.delete(part)
            have = 0
        if have == wanted.size:
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._opened(blob_name(wanted.digest), headers) as answer:
            if answer.status != 206 or not _continues(answer, have):
                have = 0
            deadline = monotonic() + STALL_SECONDS + wanted.size / SLOWEST_BYTES
            self._write(answer, wanted, part, have, deadline)

    @staticmethod
    def _write(answer: Any, wanted: Descriptor, part: Path, have: int, deadline: float) -> None:
        with files.StateFolder(part.parent).resume(part.name, at=have) as to:
            while have <= wanted.size and (chunk := _read(answer)):
                have += len(chunk)
                if monotonic() > deadline:
                    raise GatewayUnreachable("the download is too slow")
                with folder_writer.on_change(f"write {part.name}"):
                    to.write(chunk)
        if have > wanted.size:
            files.delete(part)
            raise BundleRefused(
                f"blob {wanted.digest}: more than its {wanted.size} bytes were received"
            )
        if have != wanted.size:
            raise GatewayUnreachable(f"the download stopped at {have} of {wanted.size} bytes")

    @contextmanager
    def _opened(
        self, name: str, headers: dict[str, str], body: bytes | None = None
    ) -> Iterator[Any]:
        request = urllib.request.Request(  # noqa: S310  (the gateway of the device's settings)
            f"{self._base}/{name}", body, self._credentials() | headers
        )
        try:
            with self._opener.open(request, timeout=STALL_SECONDS) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise GatewayUnreachable(
                    f"the gateway refuses this device ({error.code}): give it a key with "
                    "--api-key-file, with the scopes bundles and features"
                ) from None
            if error.code == 404 and name == "index.json":
                raise GatewayUnreachable(
                    "the gateway has no bundles at this address (404): check --deployment, "
                    "--namespace and --target, and that the deployment is Ready"
                ) from None
            raise GatewayUnreachable(f"the gateway responded {error.code} for {name}") from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise GatewayUnreachable(f"the gateway cannot be reached{_cause(error)}") from None


def _cause(error: Exception) -> str:
    """Return the cause of a failed connection, as the end of a sentence; empty if unknown."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        # Devices without a battery start with a clock in which no certificate is valid yet.
        fault = reason.verify_message.removesuffix(".")
        return f": its certificate is not accepted ({fault}); check --ca-file and the clock"
    if isinstance(reason, OSError) and reason.strerror:
        return f": {reason.strerror.lower()}"
    return ""


def part_of(file: Path) -> Path:
    """Return the file in which the download of ``file`` is kept until it is complete."""
    return file.with_name(f"{file.name}.part")


def _read(answer: Any) -> bytes:
    try:
        return bytes(answer.read1(CHUNK))
    except (http.client.HTTPException, OSError):
        raise GatewayUnreachable("the download was interrupted") from None


def _continues(answer: Any, have: int) -> bool:
    return bool(have) and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return f"sha256:{hashlib.file_digest(handle, 'sha256').hexdigest()}"


def file_digest(file: Path) -> str | None:
    """Return a file's sha256, or None if it does not exist."""
    try:
        return _digest(file)
    except OSError:
        return None
