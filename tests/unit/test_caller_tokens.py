"""Tokens of issuers that a gateway trusts: which are accepted, and what they allow."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from prometheus_client import CollectorRegistry

from fourways_api.callers import CallerPolicy, ScopeGrant, TokenIssuer
from fourways_http import Response, Router
from fourways_runtime.callers.guard import CallerGuard
from fourways_runtime.callers.tokens import Tokens
from tests.kit.callers import KEY, Keys, status
from tests.kit.gateway_plane import running
from tests.kit.waiting import until_async


class Provider:
    """An issuer of tokens with a key of its own."""

    issuer = "https://id.example"

    def __init__(self, key_id: str = "one") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.key_id = key_id

    def jwks(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": self.key_id, "use": "sig", "alg": "ES256"}]}

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        told = {"iss": self.issuer, "aud": ["fourways"], "sub": "u1", "exp": now + 60, "iat": now}
        told = {k: v for k, v in (told | claims).items() if v is not None}
        return jwt.encode(told, self.key, "ES256", headers={"kid": self.key_id})

    def config(self, **more: Any) -> TokenIssuer:
        grants = (ScopeGrant(subject="u1", scopes=("predict:churn",)),)
        settings = {"audience": "fourways", "jwks": self.jwks(), "grants": grants}
        return TokenIssuer(issuer=self.issuer, **(settings | more))


@pytest.fixture
def provider() -> Provider:
    return Provider()


async def test_a_token_of_an_issuer_is_accepted_and_all_others_are_not(
    tmp_path: Path, keys: Keys, provider: Provider
) -> None:
    now = int(time.time())
    stranger = Provider()
    shared = jwt.encode(
        {"iss": provider.issuer, "aud": "fourways", "sub": "u1", "exp": now + 60},
        "k" * 32,
        "HS256",
        headers={"kid": "one"},
    )
    none = jwt.encode(
        {"iss": provider.issuer, "aud": "fourways", "sub": "u1", "exp": now + 60}, "", "none"
    )
    wrong = {
        "expired": provider.token(exp=now - 60),
        "not yet valid": provider.token(nbf=now + 120),
        "other audience": provider.token(aud="other"),
        "no audience": provider.token(aud=None),
        "other issuer": provider.token(iss="https://other.example"),
        "no subject": provider.token(sub=None),
        "no expiry": provider.token(exp=None),
        "stranger's key": stranger.token(),
        "shared secret": shared,
        "no signature": none,
        "cut": provider.token()[:-4],
        "not a token": "a.b.c",
        "long": "a." + "b" * 100_000 + ".c",
    }
    async with running(tmp_path, callers=keys.policy(issuers=(provider.config(),))) as plane:
        assert await status(plane, KEY, provider.token()) == 200
        assert await status(plane, "/predictions/grid/5", provider.token()) == 403
        assert await status(plane, KEY, provider.token(sub="u2")) == 403
        for what, token in wrong.items():
            if what == "long":
                continue  # the server's limit on headers refuses it
            assert await status(plane, KEY, token) == 401, what


def test_an_expiry_and_a_subject_beyond_what_others_can_hold(provider: Provider) -> None:
    """JSON has whole numbers without an end, and halves of surrogate pairs."""
    tokens = Tokens((provider.config(grants=(ScopeGrant(subject="*", scopes=("read:*",)),)),))
    found = tokens.caller(provider.token(exp=10**400, sub="half \ud83d"), time.monotonic())
    assert found is not None
    caller, expires = found
    assert expires > time.time()
    assert caller.name.encode("utf-8").endswith(b"half \\ud83d")


async def test_scopes_come_from_a_claim_and_from_grants_by_subject(
    tmp_path: Path, keys: Keys, provider: Provider
) -> None:
    config = provider.config(
        scopes_claim="scope",
        grants=(ScopeGrant(subject="system:serviceaccount:shop:*", scopes=("read:*",)),),
    )
    async with running(tmp_path, callers=keys.policy(issuers=(config,))) as plane:
        claimed = provider.token(scope="openid predict:churn fly:*")
        assert await status(plane, KEY, claimed) == 200
        assert await status(plane, "/v2/models/churn", claimed) == 403
        account = provider.token(sub="system:serviceaccount:shop:web")
        assert await status(plane, "/v2/models/churn", account) == 200
        other = provider.token(sub="system:serviceaccount:shopping:web")
        assert await status(plane, "/v2/models/churn", other) == 403


@pytest.mark.thorough
async def test_a_token_is_refused_once_it_expires(
    tmp_path: Path, keys: Keys, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fourways_runtime.callers.tokens.LEEWAY_SECONDS", 0.0)
    token = provider.token(exp=int(time.time()) + 2)
    async with running(tmp_path, callers=keys.policy(issuers=(provider.config(),))) as plane:
        assert await status(plane, KEY, token) == 200

        async def ended() -> bool:
            return await status(plane, KEY, token) == 401

        await until_async(ended, "the token expires, although it is known")


async def test_keys_of_an_issuer_are_read_and_read_again_when_they_rotate(
    provider: Provider,
) -> None:
    served, reads = provider, 0

    async def download(uri: str) -> bytes:
        nonlocal reads
        reads += 1
        assert uri == "https://id.example/keys"
        return json.dumps(served.jwks()).encode()

    config = provider.config(jwks=None, jwks_uri="https://id.example/keys")
    tokens = Tokens((config,), download)
    guard = CallerGuard(CallerPolicy(issuers=(config,)), CollectorRegistry(), tokens)
    router = Router()

    def answer(request: Any) -> Response:
        return Response(request.caller.encode())

    router.add("GET", "/predictions/{deployment}/{key}", answer)
    guard.protect(router, {(b"GET", "/predictions/{deployment}/{key}"): "predict"})

    async def asked(token: str) -> Any:
        request = _request(token)
        found = router(request)
        return found if isinstance(found, Response) else await found

    assert (await asked(provider.token())).body == b"https://id.example#u1"
    assert reads == 1
    served = Provider("two")
    with pytest.raises(Exception, match="not valid"):
        await asked(served.token())  # read a moment ago: not again
    assert reads == 1


def _request(token: str) -> Any:
    from fourways_http import Request

    headers = [(b"Authorization", f"Bearer {token}".encode())]
    return Request(b"GET", b"/predictions/churn/c1", headers, b"")


def test_rsa_keys_and_shared_secrets_in_a_key_set(keys: Keys) -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
    jwks = {"keys": [{**public, "kid": "r"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, {}]}
    config = TokenIssuer(issuer="i", audience="a", jwks=jwks)
    claims = {"iss": "i", "aud": "a", "sub": "x", "exp": int(time.time()) + 60}
    tokens = Tokens((config,))
    good = jwt.encode(claims, private, "RS256", headers={"kid": "r"})
    assert tokens.caller(good, 0.0) is not None
    bad = jwt.encode(claims, b"secret" * 6, "HS256", headers={"kid": "s"})
    assert tokens.caller(bad, 0.0) is None
