"""Requests to gateways and workers, which the operator does not trust.

Owns the bounds of a response and the operator's credentials. Who is asked, when, and what the
answers mean is decided by the trackers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .errors import GatewaySilent
from .facts import Json

ANSWER_SECONDS = 5.0
MAX_BYTES = 1 << 20
TOKEN_FILE = Path("/var/run/secrets/fourways.dev/token")
"""The operator's token for gateways: bound to their audience, useless to the API server."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

M = TypeVar("M", bound=BaseModel)


def parsed(kind: type[M], text: bytes, what: str) -> M:
    """Return a response as a model; ``what`` names it in the error. Raises GatewaySilent."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GatewaySilent(f"{what}: {where}: {first['msg']}") from None


def pod_url(pod: Json, port: int, path: str) -> str | None:
    """Return a URL of a pod; None while it has no address. Pure."""
    address = pod.get("status", {}).get("podIP")
    if not address:
        return None
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"


def _credentials() -> dict[str, str]:
    """Return the operator's own token for gateways; the kubelet renews it, so it is read again."""
    try:
        token = TOKEN_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return {}  # gateways are asked without credentials
    return {"Authorization": f"Bearer {token}"}


async def ask(
    url: str,
    seconds: float = ANSWER_SECONDS,
    credentials: Callable[[], dict[str, str]] = _credentials,
    headers: Mapping[str, str] = NO_HEADERS,
) -> bytes:
    """Return the response body at a URL. Raises GatewaySilent.

    The server under the gateway's name is not trusted: the whole exchange takes at most
    ``seconds``, redirects are not followed, and a response that is too long is not read.
    """
    # Imported here: it takes a third of a second, needed only by an operator that follows a run.
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=seconds), auto_decompress=False
            ) as session,
            session.get(url, allow_redirects=False, headers={**headers, **credentials()}) as answer,
        ):
            if answer.status != 200:
                raise GatewaySilent(f"{url}: HTTP {answer.status}", answer.status)
            text = bytearray()
            async for part in answer.content.iter_any():
                text += part
                if len(text) > MAX_BYTES:
                    raise GatewaySilent(f"{url}: the answer is longer than {MAX_BYTES} bytes")
            return bytes(text)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise GatewaySilent(f"{url}: {type(error).__name__}: {error}") from None
