"""API keys: how one is made, and the mounted Secret that holds their digests.

A key has 256 random bits, so a plain SHA-256 digest cannot be reversed by guessing, and a slow
password hash would only cost time. A key names its caller: the digest is compared with that
caller's own, in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from fourways_api.callers import CALLER_NAME, KEY_PREFIX, ApiKeyRecord
from fourways_api.display import displayed
from fourways_runtime.mounted import FileState, state_of

from .caller import Caller, Scopes

logger = logging.getLogger("fourways.callers")

MAX_CALLERS = 10_000
MAX_RECORD_BYTES = 64 * 1024
_NOBODY = "0" * 64
"""Compared with where the caller is unknown, so that an unknown caller takes as long."""


def new_key(caller: str) -> tuple[str, str]:
    """Return a new key for a caller, and its digest. Only the digest may be stored."""
    key = f"{KEY_PREFIX}{caller}_{secrets.token_urlsafe(32)}"
    return key, digest_of(key)


def digest_of(key: str) -> str:
    """Return the SHA-256 digest of a key in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The callers of one folder, which is read again when it has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state: tuple[FileState, ...] | None = None
        self._callers: Mapping[str, tuple[ApiKeyRecord, Caller]] = {}

    def reread(self) -> bool:
        """Read the folder if it has changed since the last call; return whether it has. Blocks.

        A record that cannot be read removes its own caller and nobody else. A folder that is gone
        removes all.
        """
        state = state_of(self._files())
        if state == self._state:
            return False
        found: dict[str, tuple[ApiKeyRecord, Caller]] = {}
        for path in sorted(self._files())[:MAX_CALLERS]:
            record = _read(path)
            if record is not None:
                caller = Caller(path.name, Scopes(record.scopes), record.requests_per_second)
                found[path.name] = record, caller
        self._callers, self._state = found, state
        logger.info("read the API keys", extra={"callers": len(found)})
        return True

    def caller(self, key: str) -> tuple[Caller, float | None] | None:
        """Return a key's caller, and when it expires as Unix time; None if the key is not valid."""
        name, _, rest = key.removeprefix(KEY_PREFIX).partition("_")
        known = self._callers.get(name)
        digest = digest_of(key)
        stored = known[0].sha256 if known and rest else (_NOBODY,)
        # Every digest is compared, whichever matches.
        matches = [hmac.compare_digest(digest, one) for one in stored]
        if not any(matches) or known is None:
            return None
        record, caller = known
        expires = None if record.expires is None else record.expires.timestamp()
        if expires is not None and time.time() >= expires:
            return None
        return caller, expires

    def _files(self) -> list[Path]:
        # Names with a leading dot are the kubelet's: the folders that `..data` points to.
        try:
            return [path for path in self._folder.iterdir() if CALLER_NAME.fullmatch(path.name)]
        except OSError:
            return []


def _read(path: Path) -> ApiKeyRecord | None:
    try:
        with path.open("rb") as file:
            return ApiKeyRecord.model_validate_json(file.read(MAX_RECORD_BYTES))
    except OSError as error:
        why = error.strerror or type(error).__name__
    except ValidationError as error:
        # Only positions: the text may be a key that was stored by mistake.
        why = "; ".join(
            ".".join(map(str, fault["loc"])) + ": " + fault["type"] for fault in error.errors()
        )
    logger.error(
        "an API key record is not valid", extra={"caller": path.name, "why": displayed(why)}
    )
    return None
