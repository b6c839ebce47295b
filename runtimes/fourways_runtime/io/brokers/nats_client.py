"""The common part of the NATS source and publisher: connection, credentials, stream.

A Secret may contain ``user.creds`` (a JWT and its seed), ``nkey.seed``, ``token``, ``username``
with ``password``, and for TLS ``ca.crt``, ``tls.crt`` and ``tls.key``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StreamInfo

from fourways_api import Paths
from fourways_api.modes import NatsSource
from fourways_runtime.errors import (
    BrokerUnavailable,
    ConfigError,
    RetentionLosesEvents,
    TopicNotFound,
)

from ..mounted_secret import MountedSecret
from .login import check_listed

KEY_HEADER = "fourways-key"
"""Header with an event's key, percent-encoded: NATS itself has no keys."""

FAILURES = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)
"""What a call of the client raises if the server is away or refuses it."""

_NAMES = frozenset(
    {"user.creds", "nkey.seed", "token", "username", "password", "ca.crt", "tls.crt", "tls.key"}
)
_log = logging.getLogger("fourways.nats")


async def connect(source: NatsSource, paths: Paths, seconds: float) -> Client:
    """Connect with the Secret's current login.

    The client reconnects by itself with the same login; a caller that finds it disconnected makes a
    new connection.

    Raises:
        ConfigError: the Secret is missing or invalid.
        BrokerUnavailable: no server responds, or it refuses the login.

    """
    options = _credentials(source, paths)
    said: deque[Exception] = deque(maxlen=1)

    async def heard(error: Exception) -> None:
        said.append(error)
        _log.warning("nats: %s", _text(error))

    try:
        return await asyncio.wait_for(
            nats.connect(
                source.servers.split(","),
                name="fourways",
                error_cb=heard,
                connect_timeout=max(1, int(seconds)),
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                # A hanging server is detected after three of these.
                ping_interval=5,
                **options,
            ),
            seconds,
        )
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
        raise unavailable(source, said[-1] if said else error) from None


async def stream_info(client: Client, source: NatsSource, seconds: float) -> StreamInfo:
    """Return the server's information about the stream.

    Raises:
        TopicNotFound: the stream does not exist, or does not contain the subject.
        BrokerUnavailable: the server does not respond, or has no JetStream.

    """
    try:
        info = await client.jetstream(timeout=seconds).stream_info(source.stream)
    except nats.js.errors.NotFoundError:
        raise TopicNotFound(f"NATS at {source.servers} has no stream {source.stream}") from None
    except (nats.errors.Error, TimeoutError) as error:
        raise unavailable(source, error) from None
    held = info.config.subjects or ()
    if info.config.mirror is not None or info.config.sources:
        return info  # Its subjects are those of other streams.
    if not any(_overlap(subject.split("."), source.subject.split(".")) for subject in held):
        raise TopicNotFound(
            f"the stream {source.stream} at {source.servers} holds {', '.join(held) or 'nothing'}, "
            f"not {source.subject}"
        )
    return info


def check_retention(source: NatsSource, info: StreamInfo) -> None:
    """Reject a stream that deletes events on delivery.

    An event is acknowledged by the position in the store, not to the broker: if the broker waited
    for a consumer, the consumer would have to acknowledge after the write, and with interest
    retention an event that arrives while no worker runs is deleted at once.

    Raises:
        RetentionLosesEvents: retention is by interest or as a work queue.

    """
    retention = info.config.retention
    if retention in (None, RetentionPolicy.LIMITS):
        return
    raise RetentionLosesEvents(
        f"the stream {source.stream} has the retention {getattr(retention, 'value', retention)}: "
        "its events are deleted on delivery, and a worker that dies loses those it has not scored. "
        "Set its retention to limits (NATS cannot change that of a work queue: make the stream "
        "anew). Readers that need a queue can have one with this stream as its source"
    )


def unavailable(source: NatsSource, error: object) -> BrokerUnavailable:
    """Translate an error of the client."""
    text = _text(error)
    refused = isinstance(error, nats.errors.AuthorizationError) or "uthorization" in text
    verb = "does not answer"
    if refused:
        secret = source.credentials
        which = f"in the Secret {secret.secret_name}" if secret else "without credentials"
        verb = f"refuses the login {which}"
    found = BrokerUnavailable(f"NATS at {source.servers} {verb}: {text}")
    found.login_refused = refused
    return found


def _text(error: object) -> str:
    return (str(error) or type(error).__name__)[:300]


def key_text(key: bytes) -> str:
    """Encode a key as a header value."""
    return quote_from_bytes(key)


def key_bytes(text: str | None) -> bytes | None:
    """Decode a key from a header value."""
    return None if text is None else unquote_to_bytes(text)


def literal(subject: str) -> str:
    """Return a subject for publishing: if it has wildcards, one that they match."""
    return ".".join("fourways" if part in ("*", ">") else part for part in subject.split("."))


def _overlap(held: list[str], read: list[str]) -> bool:
    for ours, theirs in zip(held, read, strict=False):
        if ">" in (ours, theirs):
            return True
        if ours != theirs and "*" not in (ours, theirs):
            return False
    return len(held) == len(read)


def _credentials(source: NatsSource, paths: Paths) -> dict[str, Any]:
    if source.credentials is None:
        return {}
    secret = MountedSecret.of(source.credentials, paths)
    folder = secret.folder
    try:
        files = set(secret.names())
        check_listed(secret, source.servers, source.DEFAULT_PORT)
        unknown = sorted(files - _NAMES)
        if unknown:
            raise ConfigError(
                f"the broker's Secret {folder.name} holds {', '.join(unknown)}; it may hold "
                f"{', '.join(sorted(_NAMES))}"
            )
        return _options(folder, files)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"the broker's Secret {folder.name} cannot be read: {why}") from None


def _options(folder: Path, files: Iterable[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "user.creds" in files:
        options["user_credentials"] = str(folder / "user.creds")
    if "nkey.seed" in files:
        options["nkeys_seed"] = str(folder / "nkey.seed")
    for name, option in (("token", "token"), ("username", "user"), ("password", "password")):
        if name in files:
            options[option] = (folder / name).read_text("utf-8").strip()
    if "ca.crt" in files or "tls.crt" in files:
        context = ssl.create_default_context()
        if "ca.crt" in files:
            context.load_verify_locations(folder / "ca.crt")
        if "tls.crt" in files:
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        options["tls"] = context
    return options
