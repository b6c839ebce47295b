"""JSON Web Tokens: of OpenID Connect providers, and of the cluster for its ServiceAccounts.

Signatures are verified by PyJWT with public keys only: an algorithm with a shared secret, or none,
is never accepted. It is imported when the first token is verified: most gateways see none.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fourways_api.callers import Scope, TokenIssuer

from .caller import Caller, Scopes

logger = logging.getLogger("fourways.callers")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_SECONDS = 30.0
"""Allowed difference between the issuer's clock and ours."""

MAX_TOKEN_BYTES = 8192
MAX_JWKS_BYTES = 256 * 1024
REREAD_SECONDS = 600.0
UNKNOWN_KEY_SECONDS = 30.0
"""Minimum time between two reads because a token names an unknown key."""

_LATEST = 2**53
"""The latest expiry that is distinguished from later ones, as Unix time."""

_SCOPE = TypeAdapter(Scope)
Download = Callable[[str], Awaitable[bytes]]


class Issuer:
    """One issuer: its public keys, and who its tokens stand for."""

    def __init__(self, config: TokenIssuer, download: Download | None = None) -> None:
        """``download`` reads an address; by default over https."""
        self.config = config
        self._download = download or _download
        self._keys: Mapping[str, Any] = _parsed(config.jwks) if config.jwks else {}
        self._read_at = 0.0

    @property
    def remote(self) -> bool:
        """Whether the keys are read from an address."""
        return self.config.jwks_uri is not None

    def due(self, now: float) -> bool:
        """Return whether the keys should be read again; ``now`` is a value of ``monotonic()``."""
        return self.remote and (not self._read_at or now - self._read_at >= REREAD_SECONDS)

    def may_reread(self, now: float) -> bool:
        """Return whether an unknown key may cause another read."""
        return self.remote and now - self._read_at >= UNKNOWN_KEY_SECONDS

    async def reread(self, now: float) -> None:
        """Read the keys from their address; the keys known before stay if that fails."""
        assert self.config.jwks_uri is not None, "only a remote issuer is read"  # noqa: S101
        self._read_at = now
        try:
            import orjson

            self._keys = _parsed(orjson.loads(await self._download(self.config.jwks_uri)))
        except Exception as error:  # noqa: BLE001  (whatever it was, the known keys stay)
            logger.warning(
                "the keys of a token issuer cannot be read; the known ones stay",
                extra={"issuer": self.config.issuer, "why": type(error).__name__},
            )

    def knows(self, key_id: str | None) -> bool:
        """Return whether there is a public key of that id."""
        return self._key(key_id) is not None

    def _key(self, key_id: str | None) -> Any:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id or "")

    def caller(self, token: str, key_id: str | None) -> tuple[Caller, float] | None:
        """Return a token's caller, and when it expires as Unix time; None if it is not valid."""
        import jwt

        key = self._key(key_id)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self.config.audience,
                issuer=self.config.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
        except jwt.PyJWTError:
            return None
        return self._of(claims), float(min(int(claims["exp"]), _LATEST))

    def _of(self, claims: Mapping[str, Any]) -> Caller:
        # JSON may have halves of surrogate pairs, which no log can be written with.
        subject = str(claims["sub"]).encode("utf-8", "backslashreplace").decode()
        scopes, rate = list(_claimed(claims, self.config.scopes_claim)), None
        for grant in self.config.grants:
            if _matches(grant.subject, subject):
                scopes += grant.scopes
                rate = grant.requests_per_second or rate
        return Caller(f"{self.config.issuer}#{subject}", Scopes(scopes), rate)


class Tokens:
    """The issuers of one gateway."""

    def __init__(self, issuers: tuple[TokenIssuer, ...], download: Download | None = None) -> None:
        self._issuers = [Issuer(one, download) for one in issuers]

    async def refresh(self, now: float) -> None:
        """Read the keys again that are due."""
        await asyncio.gather(*(one.reread(now) for one in self._issuers if one.due(now)))

    def caller(self, token: str, now: float) -> tuple[Caller, float] | None:
        """Return a token's caller and expiry (Unix time); None if no issuer vouches for it.

        Raises UnknownKey if an issuer's keys should be read again first.
        """
        if not self._issuers or len(token) > MAX_TOKEN_BYTES:
            return None
        key_id = _key_id(token)
        for issuer in self._issuers:
            if not issuer.knows(key_id):
                if issuer.may_reread(now):
                    raise UnknownKey(issuer)
                continue
            found = issuer.caller(token, key_id)
            if found is not None:
                return found
        return None


class UnknownKey(Exception):
    """A token names a public key that is not known yet."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__("unknown key")
        self.issuer = issuer


def _key_id(token: str) -> str | None:
    import jwt

    try:
        found = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        return "\0"  # the id of no key
    return None if found is None else str(found)


def _matches(pattern: str, subject: str) -> bool:
    if pattern.endswith("*"):
        return subject.startswith(pattern[:-1])
    return subject == pattern


def _claimed(claims: Mapping[str, Any], claim: str | None) -> tuple[str, ...]:
    listed = claims.get(claim) if claim else None
    words = listed.split() if isinstance(listed, str) else listed
    if not isinstance(words, list):
        return ()
    found = []
    for word in words[:256]:
        try:
            found.append(_SCOPE.validate_python(word))
        except ValidationError:
            continue  # a scope of another service
    return tuple(found)


def _parsed(document: Any) -> dict[str, Any]:
    import jwt

    found: dict[str, Any] = {}
    for entry in document["keys"][:64]:
        if entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
            continue
        try:
            found[str(entry.get("kid", ""))] = jwt.PyJWK(entry)
        except jwt.PyJWTError:
            continue
    return found


async def _download(uri: str) -> bytes:
    import httpx

    async with (
        httpx.AsyncClient(
            timeout=10.0, follow_redirects=False, verify=ssl.create_default_context()
        ) as http,
        http.stream("GET", uri) as answer,
    ):
        answer.raise_for_status()
        body = bytearray()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > MAX_JWKS_BYTES:
                raise ValueError("too large")
        return bytes(body)
