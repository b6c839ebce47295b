"""What the torture of callers sends: every path, every way to send it, every wrong credential."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fourways_api.callers import Scope, ScopeGrant, TokenIssuer, Verb
from fourways_runtime.workloads.gateway.access import ACCESS
from tools.demo.questions import SHOWN, reading, tensor

from .callers_rig import KeyFolder

NOBODY = "no-such-deployment"
ISSUER = "https://id.example"
NO_CREDENTIALS = "credentials are needed: send the header `Authorization: Bearer KEY`"
INVALID = "the credentials are not valid"

_VALUES = {
    "key": "01760",
    "version": "1.0.0",
    "run": "manual",
    "target": "x86-64",
    "file": "index.json",
    "digest": "0" * 64,
}
_BINARY = b"Inference-Header-Content-Length: %d\r\nContent-Type: application/octet-stream\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    """A method on a path, and what a caller needs for it."""

    method: str
    path: str
    verb: Verb
    deployment: str | None
    body: bytes
    headers: bytes = b""


@dataclass(frozen=True, slots=True)
class Credential:
    """Credentials that allow nothing here. ``sent`` is header lines."""

    name: str
    sent: bytes
    cause: str
    """The cause that the gateway counts."""

    scopes: tuple[str, ...] = ()
    """What the credentials do allow."""

    def refused(self, target: Target) -> tuple[int, str]:
        """Return the status and the message that a target must answer."""
        if self.cause == "NotAllowed":
            where = "all deployments" if target.verb == "metrics" else target.deployment
            on = f" on {where}" if where is not None else ""
            return 403, f"these credentials do not allow `{target.verb}`{on}"
        return 401, NO_CREDENTIALS if self.cause == "NoCredentials" else INVALID

    def allows(self, target: Target) -> bool:
        """Return whether these credentials are good for a target."""
        for verb, _, name in (scope.partition(":") for scope in self.scopes):
            # A list is filtered, so any scope of its verb is good; metrics are of all deployments.
            on = target.deployment or ("any" if target.verb == "metrics" else name)
            if verb == target.verb and fnmatch.fnmatchcase(on, name):
                return True
        return False


def targets() -> list[Target]:
    """Return every path that needs credentials, for a deployment of each mode and for none."""
    found = []
    for (method, pattern), verb in ACCESS.items():
        if verb is None:
            continue
        names = (*SHOWN, NOBODY) if "{deployment}" in pattern else (None,)
        for name in names:
            path = pattern.replace("{deployment}", name or "")
            for field, value in _VALUES.items():
                path = path.replace(f"{{{field}}}", value)
            for body, headers in _bodies(method.decode(), path):
                found.append(Target(method.decode(), path, verb, name, body, headers))
            if method == b"GET":
                found.append(Target("HEAD", path, verb, name, b""))
    return found


def _bodies(method: str, path: str) -> Iterator[tuple[bytes, bytes]]:
    if method != "POST" or not path.endswith("/infer"):
        yield b"", b""
        return
    question = orjson.dumps(question_of(path.split("/")[3]))
    yield question, b"Content-Type: application/json\r\n"
    yield question + b"\0" * 8, _BINARY % len(question)


def question_of(deployment: str) -> Any:
    """Return a request that the deployment would answer."""
    if deployment == "water-flow":
        # A reading that no other part of the torture asks for: it would become an event.
        return {"inputs": reading("2022-04-27T18Z")[1]}
    if deployment == "come-back":
        numbers = [tensor("basket_dollars", "FP32", [24.5]), tensor("basket_discs", "INT32", [2])]
        return {"inputs": [tensor("customer_id", "BYTES", ["01760"]), *numbers]}
    return {"inputs": [tensor("customer_id", "BYTES", ["01760"])]}


# ---------------------------------------------------------------- ways to send


def plain(target: Target, sent: bytes) -> bytes:
    """HTTP/1.1."""
    return _request(target, target.path.encode(), sent, b"HTTP/1.1")


def old(target: Target, sent: bytes) -> bytes:
    """HTTP/1.0."""
    return _request(target, target.path.encode(), sent, b"HTTP/1.0")


def absolute(target: Target, sent: bytes) -> bytes:
    """The target as a proxy writes it."""
    return _request(target, b"http://localhost" + target.path.encode(), sent, b"HTTP/1.1")


def encoded(target: Target, sent: bytes) -> bytes:
    """The deployment's name percent-encoded, with a query."""
    path = target.path
    if target.deployment:
        hidden = "".join(f"%{ord(letter):02x}" for letter in target.deployment)
        path = path.replace(f"/{target.deployment}", f"/{hidden}", 1)
    return _request(target, f"{path}?key=1&access_token=2".encode(), sent, b"HTTP/1.1")


def chunked(target: Target, sent: bytes) -> bytes:
    """The body in chunks."""
    if not target.body:
        return plain(target, sent)
    head = b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b%bTransfer-Encoding: chunked\r\n\r\n"
    start = head % (target.method.encode(), target.path.encode(), sent, target.headers)
    return start + b"%x\r\n%b\r\n0\r\n\r\n" % (len(target.body), target.body)


def after_another(target: Target, sent: bytes) -> bytes:
    """Behind a request with good credentials on the same connection, which is sent before."""
    return plain(target, sent)


WAYS = (plain, old, absolute, encoded, chunked, after_another)


def _request(target: Target, path: bytes, sent: bytes, version: bytes) -> bytes:
    length = b"Content-Length: %d\r\n" % len(target.body) if target.body else b""
    start = b"%b %b %b\r\nHost: localhost\r\n" % (target.method.encode(), path, version)
    return start + sent + target.headers + length + b"\r\n" + target.body


# ---------------------------------------------------------------- credentials


class Issuer:
    """An issuer of tokens that the gateway trusts, and tokens that it must not accept."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def config(self) -> TokenIssuer:
        """Return the issuer as the gateway knows it."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        grants = (
            ScopeGrant(subject="everything", scopes=("*:*",)),
            ScopeGrant(subject="reader", scopes=("read:churn",)),
        )
        keys = {"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}
        return TokenIssuer(issuer=ISSUER, audience="fourways", jwks=keys, grants=grants)

    def token(self, **claims: Any) -> str:
        """Return a valid token, with other claims where given; None removes one."""
        return self._signed(self._key, **claims)

    def wrong(self) -> Mapping[str, str]:
        """Return tokens that allow nothing."""
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        now = time.time()
        good = self.token()
        return {
            "an expired token": self.token(exp=int(now) - 60),
            "a token of tomorrow": self.token(nbf=int(now) + 86_400),
            "a token for another service": self.token(aud="elsewhere"),
            "a token of another issuer": self.token(iss="https://other.example"),
            "a token without an expiry": self.token(exp=None),
            "a token without a subject": self.token(sub=None),
            "a stranger's token": self._signed(self._stranger),
            "a token without a signature": _by_hand("none", None),
            "a token signed with our public key": _by_hand("HS256", public),
            "a token whose claims were changed": _swapped(good, self._signed(self._stranger)),
            "half a token": good[: len(good) // 2],
        }

    def _signed(self, key: rsa.RSAPrivateKey, **claims: Any) -> str:
        told = {k: v for k, v in (_claims() | claims).items() if v is not None}
        return jwt.encode(told, key, "RS256", headers={"kid": "one"})


def _claims() -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": "fourways", "sub": "everything", "iat": now, "exp": now + 3600}


def _by_hand(algorithm: str, key: bytes | None) -> str:
    """Return a token that no library makes."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    head = {"alg": algorithm, "kid": "one", "typ": "JWT"}
    signed = f"{part(orjson.dumps(head))}.{part(orjson.dumps(_claims()))}"
    made = b"" if key is None else hmac.digest(key, signed.encode(), "sha256")
    return f"{signed}.{part(made)}"


def _swapped(signed: str, other: str) -> str:
    head, _, signature = signed.split(".")
    return ".".join((head, other.split(".")[1][:-4] + "AAAA", signature))


def credentials(keys: KeyFolder, issuer: Issuer) -> tuple[list[Credential], list[str]]:
    """Return every kind of credentials that allow nothing, and all that must be in no log.

    The caller ``revoked`` is still valid: revoke it, and wait, before its key is sent.
    """
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    good = keys.add("shop", "*:*")
    expired = keys.add("expired", "*:*", expires=past)
    revoked = keys.add("revoked", "*:*")
    secret = good.rpartition("_")[2]
    digest = hashlib.sha256(good.encode()).hexdigest()
    wrong = {
        "another secret": f"fwk_shop_{'A' * len(secret)}",
        "the secret with another end": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "a key without its end": good[:-1],
        "a longer key": good + "A",
        "another's name": f"fwk_expired_{secret}",
        "an unknown caller": f"fwk_nobody_{secret}",
        "the digest for the key": f"fwk_shop_{digest}",
        "no secret": "fwk_shop_",
        "no caller": "fwk_",
        "upper case": good.upper(),
        "an expired key": expired,
        "a revoked key": revoked,
        "a path for a caller": f"fwk_../keys/shop_{secret}",
        **issuer.wrong(),
    }
    found = [Credential("none", b"", "NoCredentials")]
    found.append(Credential("elsewhere", _elsewhere(good), "NoCredentials"))
    found += [_bearer(name, value, "InvalidCredentials") for name, value in wrong.items()]
    basic = base64.b64encode(f"shop:{good}".encode()).decode()
    odd = {
        "Basic": f"Basic {basic}",
        "no scheme": good,
        "another scheme": f"Key {good}",
        "an empty header": "",
        "two keys": f"Bearer {good}, {good}",
    }
    for name, value in odd.items():
        line = f"Authorization: {value}\r\n".encode()
        found.append(Credential(name, line, "InvalidCredentials" if value else "NoCredentials"))
    proxied = f"X-Fourways-Authorization: Bearer {wrong['another secret']}\r\n".encode()
    found.append(Credential("the proxy's header", proxied, "InvalidCredentials"))
    scoped: dict[str, tuple[Scope, ...]] = {
        "of another deployment": ("predict:segmentation", "read:churn-2", "bundles:x*"),
        "for metrics of one deployment": ("metrics:churn",),
        "of no verb": (),
    }
    secrets = [good, *wrong.values(), basic]
    for name, scopes in scoped.items():
        key = keys.add(name.replace(" ", "-"), *scopes)
        found.append(_bearer(f"a key {name}", key, "NotAllowed", *scopes))
        secrets.append(key)
    for verb in ("predict", "read", "rejects", "features", "bundles", "metrics"):
        key = keys.add(f"only-{verb}", f"{verb}:*")
        found.append(_bearer(f"a key for {verb}", key, "NotAllowed", f"{verb}:*"))
        secrets.append(key)
    reader = issuer.token(sub="reader")
    found.append(_bearer("a reader's token", reader, "NotAllowed", "read:churn"))
    nobody = issuer.token(sub="somebody")
    found.append(_bearer("a token that grants nothing", nobody, "NotAllowed"))
    return found, [*secrets, reader, nobody]


def _bearer(name: str, key: str, cause: str, *scopes: str) -> Credential:
    return Credential(name, f"Authorization: Bearer {key}\r\n".encode(), cause, scopes)


def _elsewhere(key: str) -> bytes:
    """Return a good key in headers that carry none."""
    headers = ("Cookie: key=", "X-Api-Key: ", "Proxy-Authorization: Bearer ", "X-Authorization: ")
    return "".join(f"{header}{key}\r\n" for header in headers).encode()
