"""Credentials of registries as `docker login`, `podman login` and their helpers keep them."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from .errors import PushFailed

HELPER_SECONDS = 30.0
_HELPER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def login_of(authority: str) -> tuple[str, str] | None:
    """Return user and password for a registry, ``HOST[:PORT]``; None if nobody logged in.

    Raises:
        PushFailed: the credentials cannot be read.

    """
    for file in _files():
        if file.is_file():
            found = _in_file(file, authority)
            if found is not None:
                return found
    return None


def _files() -> list[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [*([Path(runtime) / "containers" / "auth.json"] if runtime else []), docker]


def _in_file(file: Path, authority: str) -> tuple[str, str] | None:
    try:
        document = json.loads(file.read_text("utf-8"))
        helpers: dict[str, Any] = document.get("credHelpers") or {}
        helper = helpers.get(authority) or document.get("credsStore")
        entry = (document.get("auths") or {}).get(authority) or {}
        if text := entry.get("auth"):
            user, _, password = base64.b64decode(text).decode().partition(":")
            return user, password
    except (OSError, ValueError, AttributeError, TypeError) as error:
        # Without the text, which holds passwords.
        raise PushFailed(f"{file} cannot be read: {type(error).__name__}") from None
    return _from_helper(str(helper), authority) if helper else None


def _from_helper(name: str, authority: str) -> tuple[str, str] | None:
    """Ask a credential helper; None if it knows no login."""
    if not _HELPER.fullmatch(name):
        raise PushFailed(f"{name!r} is not the name of a credential helper")
    try:
        done = subprocess.run(
            [f"docker-credential-{name}", "get"],
            input=authority,
            capture_output=True,
            text=True,
            timeout=HELPER_SECONDS,
        )
        if done.returncode:
            return None
        login = json.loads(done.stdout)
        return str(login["Username"]), str(login["Secret"])
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
        raise PushFailed(
            f"docker-credential-{name} gave no login: {type(error).__name__}"
        ) from None
