"""A caller: a name, what it may do, and how often."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from fourways_api.callers import VERBS, Verb

EVERY = "*"
"""All deployments, which is the name of none."""


class Scopes:
    """What a caller may do, prepared so that a check costs two look-ups."""

    __slots__ = ("_by_verb",)

    def __init__(self, scopes: Iterable[str]) -> None:
        """``scopes`` are of the form ``VERB:DEPLOYMENT``."""
        self._by_verb: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {}
        granted: dict[str, list[str]] = {}
        for scope in scopes:
            verb, _, deployment = scope.partition(":")
            for one in VERBS if verb == "*" else (verb,):
                granted.setdefault(one, []).append(deployment)
        for verb, names in granted.items():
            exact = frozenset(name for name in names if not name.endswith("*"))
            prefixes = tuple({name[:-1] for name in names if name.endswith("*")})
            self._by_verb[verb] = exact, prefixes

    def allow(self, verb: Verb, deployment: str | None) -> bool:
        """Return whether the verb is allowed on a deployment.

        None stands for any at all, and :data:`EVERY` for all of them.
        """
        granted = self._by_verb.get(verb)
        if granted is None:
            return False
        exact, prefixes = granted
        if deployment == EVERY:
            return "" in prefixes
        return deployment is None or deployment in exact or deployment.startswith(prefixes)


class RequestRate:
    """A caller's budget of requests: so many a second, in bursts of up to one second's."""

    __slots__ = ("_at", "_burst", "_left", "per_second")

    def __init__(self, per_second: float | None) -> None:
        self.per_second = inf if per_second is None else per_second
        self._burst = self._left = max(1.0, self.per_second)
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Take one request; return 0, or the seconds until one is allowed.

        ``now`` is a value of ``monotonic()``.
        """
        if self.per_second == inf:
            return 0.0
        self._left = min(self._burst, self._left + (now - self._at) * self.per_second)
        self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self.per_second
        self._left -= 1.0
        return 0.0


class Caller:
    """Whoever sent a request. ``name`` is unique among callers and safe to show."""

    __slots__ = ("name", "per_second", "scopes")

    def __init__(self, name: str, scopes: Scopes, per_second: float | None = None) -> None:
        self.name = name
        self.scopes = scopes
        self.per_second = per_second
