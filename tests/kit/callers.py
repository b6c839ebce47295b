"""API keys of a gateway, and requests with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fourways_api.callers import CallerPolicy, TokenIssuer
from fourways_runtime.callers.api_keys import new_key
from tests.kit.gateway_plane import Running

KEY = "/predictions/churn/c1"
"""A path that needs the scope predict:churn."""


class Keys:
    """A folder of API keys, as the kubelet mounts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "callers"
        self.folder.mkdir()

    def add(self, name: str, *scopes: str, **more: Any) -> str:
        key, digest = new_key(name)
        self.write(name, {"sha256": [digest], "scopes": scopes, **more})
        return key

    def write(self, name: str, record: Any) -> None:
        text = record if isinstance(record, str) else json.dumps(record)
        part = self.folder / f".{name}"
        part.write_text(text)
        part.rename(self.folder / name)

    def policy(self, *anonymous: str, issuers: tuple[TokenIssuer, ...] = ()) -> CallerPolicy:
        return CallerPolicy(keys_dir=str(self.folder), anonymous=anonymous, issuers=issuers)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def status(plane: Running, path: str, key: str | None = None) -> int:
    headers = {} if key is None else bearer(key)
    return (await plane.client.get(path, headers=headers)).status_code
