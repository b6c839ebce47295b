"""Who may send requests to a gateway: API keys, token issuers, and what each caller may do.

A scope is ``VERB:DEPLOYMENT``. The deployment is a name, a prefix followed by ``*``, or ``*`` for
all; the verb is one of :data:`Verb`, or ``*`` for all.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from .base import ApiModel, Rule

Verb = Literal["predict", "read", "rejects", "features", "bundles", "metrics"]
"""What a request does: predict asks for predictions; read lists deployments, contracts and runs;
rejects reads refused rows, which hold data; features and bundles are what devices read."""

VERBS: tuple[Verb, ...] = ("predict", "read", "rejects", "features", "bundles", "metrics")

_NAME = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
Scope = Annotated[
    str,
    Field(
        max_length=80,
        pattern=rf"^(\*|{'|'.join(VERBS)}):(\*|{_NAME}|[a-z0-9]([a-z0-9-]{{0,61}})?\*)$",
        examples=["predict:churn", "read:*", "*:team-*"],
    ),
]

CALLER_NAME = re.compile(_NAME)
"""Names of callers: keys of the Secret, and the middle part of an API key."""

KEY_PREFIX = "fwk_"
"""An API key is ``fwk_CALLER_SECRET``. Only its digest is stored."""

CALLERS_DIR = "/etc/fourways/callers"
"""Folder in which the Secret of API keys is mounted, one file a caller."""

TLS_DIR = "/etc/fourways/tls"
"""Folder in which a server's certificate is mounted: ``tls.crt`` and ``tls.key``."""

SERVERS_CA_FILE = "/etc/fourways/servers/ca.crt"
"""File with the authority that gateways verify model servers by, from a mounted Secret."""

Rate = Annotated[float, Field(gt=0, le=1_000_000)]


class ApiKeyRecord(ApiModel):
    """One caller's entry in the Secret of API keys: JSON under the caller's name."""

    sha256: Annotated[
        tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...], Field(min_length=1)
    ]
    """SHA-256 digests of the caller's keys, in hexadecimal: two while a key is replaced."""

    scopes: tuple[Scope, ...]
    requests_per_second: Rate | None = None
    """Maximum rate of requests, with bursts of up to one second's; None: no limit."""

    expires: AwareDatetime | None = None
    """Time from which the keys are refused; None: never."""


class ScopeGrant(ApiModel):
    """Scopes for tokens by their subject."""

    subject: Annotated[str, Field(min_length=1, max_length=512)]
    """The token's ``sub``. A ``*`` at the end stands for any rest."""

    scopes: tuple[Scope, ...]
    requests_per_second: Rate | None = None


class TokenIssuer(ApiModel):
    """An issuer of JSON Web Tokens: an OpenID Connect provider, or the cluster itself."""

    issuer: Annotated[str, Field(min_length=1, max_length=512)]
    """The tokens' ``iss``."""

    audience: Annotated[str, Field(min_length=1, max_length=512)]
    """The tokens' ``aud`` must contain it: a token for another service is refused."""

    jwks: dict[str, Any] | None = None
    """Public keys, as a JSON Web Key Set."""

    jwks_uri: Annotated[str, Field(pattern="^https://", max_length=2048)] | None = None
    """Address that the public keys are read from, again when an unknown key is named."""

    scopes_claim: Annotated[str, Field(max_length=256)] | None = None
    """Claim that lists scopes: an array, or words separated by blanks. Others are ignored."""

    grants: tuple[ScopeGrant, ...] = ()

    rules = (
        Rule(
            "has(self.jwks) != has(self.jwksUri)",
            "an issuer has either keys or an address that they are read from",
            "set one of jwks and jwksUri",
        ),
    )


class CallerPolicy(ApiModel):
    """Who may send requests to a gateway. Without a policy, everybody may."""

    keys_dir: str = CALLERS_DIR
    """Folder with an :class:`ApiKeyRecord` per caller. It is read again when it changes."""

    issuers: tuple[TokenIssuer, ...] = ()
    anonymous: tuple[Scope, ...] = ()
    """Scopes of requests without credentials."""


class ServiceAccountGrant(ApiModel):
    """Scopes for the tokens of ServiceAccounts of the cluster."""

    namespace: Annotated[str, Field(max_length=63)] = ""
    """Their namespace; empty: that of the gateway."""

    name: Annotated[str, Field(min_length=1, max_length=253)] = "*"
    """Name of a ServiceAccount; ``*``: all of the namespace."""

    scopes: tuple[Scope, ...]
    requests_per_second: Rate | None = None


class GatewayAccess(ApiModel):
    """Who may send requests to the gateways of an installation: the chart's ``gateway.auth``."""

    keys_secret: Annotated[str, Field(min_length=1, max_length=253)] = "fourways-callers"  # noqa: S105
    """Name of the Secret of API keys in each namespace."""

    audience: Annotated[str, Field(min_length=1, max_length=512)] = "fourways"
    """Audience of the cluster's tokens for callers."""

    service_accounts: tuple[ServiceAccountGrant, ...] = (
        ServiceAccountGrant(scopes=("predict:*", "read:*")),
    )
    issuers: tuple[TokenIssuer, ...] = ()
    """Further issuers of tokens."""

    anonymous: tuple[Scope, ...] = ()


class ClusterIssuer(ApiModel):
    """The cluster as an issuer of tokens: public, from the API server."""

    issuer: str
    jwks: dict[str, Any]
