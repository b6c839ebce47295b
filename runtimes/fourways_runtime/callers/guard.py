"""Checks a request's credentials before its handler runs.

Owns the order of the checks: who it is (401), whether it may (403), whether it comes too often
(429). A path whose verb nobody declared is never served: :meth:`CallerGuard.protect` raises at
start.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter

from fourways_api.callers import KEY_PREFIX, CallerPolicy, Verb
from fourways_http import HttpError, Request, Response, Router
from fourways_http.message import Answer, Handler, awaited
from fourways_runtime.process import in_thread

from .api_keys import ApiKeys
from .caller import EVERY, Caller, RequestRate, Scopes
from .tokens import Tokens, UnknownKey

logger = logging.getLogger("fourways.callers")

AUTHORIZATION = b"authorization"
FORWARDED_AUTHORIZATION = b"x-fourways-authorization"
"""Read where ``Authorization`` is absent: the API server's proxy consumes that one."""

ACCESS_SECONDS = 1.0
"""Time between two looks at the folder of keys."""

_MAX_KNOWN = 4096
_MAX_RATES = 16_384
_NO_CREDENTIALS = "credentials are needed: send the header `Authorization: Bearer KEY`"
_CHALLENGE = (b'www-authenticate: Bearer realm="fourways"',)

Access: TypeAlias = Mapping[tuple[bytes, str], Verb | None]
"""The verb that a method on a path needs; None: anybody may, such as a probe."""


class _Known:
    """A credential that was valid, until ``until`` in ``monotonic()`` seconds."""

    __slots__ = ("caller", "until")

    def __init__(self, caller: Caller, until: float) -> None:
        self.caller = caller
        self.until = until


class CallerGuard:
    """The policy of one gateway at work."""

    def __init__(
        self, policy: CallerPolicy, registry: CollectorRegistry, tokens: Tokens | None = None
    ) -> None:
        self._keys = ApiKeys(Path(policy.keys_dir))
        self._tokens = tokens or Tokens(policy.issuers)
        self._anonymous = Caller("anonymous", Scopes(policy.anonymous))
        self._known: dict[bytes, _Known] = {}
        self._rates: dict[str, RequestRate] = {}
        self._task: asyncio.Task[None] | None = None
        refused = Counter(
            "fourways_gateway_refused_requests",
            "Requests refused before they reached a deployment, by cause.",
            ("cause",),
            registry=registry,
        )
        self._count: dict[str, Callable[[], None]] = {
            cause: refused.labels(cause).inc
            for cause in ("NoCredentials", "InvalidCredentials", "NotAllowed", "TooMany")
        }

    def start(self) -> None:
        """Read the keys, and go on looking at them in the background. Blocks for a moment."""
        self._keys.reread()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                logger.exception("looking at the API keys failed; going on")
            await asyncio.sleep(ACCESS_SECONDS)

    async def _look(self) -> None:
        if await in_thread(self._keys.reread, "callers"):
            self._known.clear()
        await self._tokens.refresh(monotonic())

    # ---- per request

    def protect(self, router: Router, access: Access) -> None:
        """Put the guard before every handler of a router.

        Raises LookupError naming a path whose verb ``access`` does not say.
        """
        for route in router.routes:
            for method, handler in route.handlers.items():
                verb = access[b"GET" if method == b"HEAD" else method, route.pattern]
                if verb is not None:
                    route.handlers[method] = self._guarded(verb, handler)

    def _guarded(self, verb: Verb, handler: Handler) -> Handler:
        def checked(request: Request) -> Answer:
            credential = request.header(AUTHORIZATION) or request.header(FORWARDED_AUTHORIZATION)
            known = self._known.get(credential) if credential is not None else None
            if known is None or known.until <= monotonic():
                try:
                    caller = self._identify(credential)
                except UnknownKey as unknown:
                    return self._after_reread(unknown, verb, handler, request)
            else:
                caller = known.caller
            self._admit(caller, verb, request)
            return handler(request)

        return checked

    async def _after_reread(
        self, unknown: UnknownKey, verb: Verb, handler: Handler, request: Request
    ) -> Response:
        await unknown.issuer.reread(monotonic())
        return await awaited(self._guarded(verb, handler)(request))

    def hold(self, verb: Verb, deployment: str, request: Request) -> None:
        """Check a deployment that only the body names, after the guard let the request pass.

        Raises HttpError 403, or 401 if the request has no credentials.
        """
        credential = request.header(AUTHORIZATION) or request.header(FORWARDED_AUTHORIZATION)
        self._allow(self._identify(credential), verb, deployment)

    def _allow(self, caller: Caller, verb: Verb, deployment: str | None) -> None:
        # Metrics are those of all deployments together.
        if verb == "metrics" and deployment is None:
            deployment = EVERY
        if caller.scopes.allow(verb, deployment):
            return
        if caller is self._anonymous:
            self._count["NoCredentials"]()
            raise HttpError(401, _NO_CREDENTIALS, _CHALLENGE)
        self._count["NotAllowed"]()
        where = "all deployments" if deployment == EVERY else (deployment or "")[:63]
        on = f" on {where}" if where else ""
        raise HttpError(403, f"these credentials do not allow `{verb}`{on}")

    def _admit(self, caller: Caller, verb: Verb, request: Request) -> None:
        deployment = request.params.get("deployment")
        self._allow(caller, verb, deployment)
        if deployment is None:
            request.sees = partial(caller.scopes.allow, verb)
        if caller.per_second is not None:
            wait = self._rate(caller).wait(monotonic())
            if wait:
                self._count["TooMany"]()
                retry = b"retry-after: " + str(math.ceil(wait)).encode("ascii")
                raise HttpError(429, "too many requests of this caller", (retry,))
        request.caller = caller.name

    def _rate(self, caller: Caller) -> RequestRate:
        rate = self._rates.get(caller.name)
        if rate is None or rate.per_second != caller.per_second:
            if len(self._rates) >= _MAX_RATES:
                self._rates.clear()
            rate = self._rates[caller.name] = RequestRate(caller.per_second)
        return rate

    def _identify(self, credential: bytes | None) -> Caller:
        """Return the caller. Raises HttpError 401."""
        if credential is None:
            return self._anonymous
        scheme, _, rest = credential.partition(b" ")
        found: tuple[Caller, float | None] | None = None
        if scheme.lower() == b"bearer":
            token = rest.strip().decode("latin-1")
            if token.startswith(KEY_PREFIX):
                found = self._keys.caller(token)
            else:
                found = self._tokens.caller(token, monotonic())
        if found is None:
            self._count["InvalidCredentials"]()
            raise HttpError(401, "the credentials are not valid", _CHALLENGE)
        caller, expires = found
        until = math.inf if expires is None else monotonic() + expires - time.time()
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[credential] = _Known(caller, until)
        return caller
