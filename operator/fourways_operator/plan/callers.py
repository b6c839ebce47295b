"""Who may send requests to one namespace's gateway, by the installation's settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from fourways_api.callers import CallerPolicy, ScopeGrant, ServiceAccountGrant, TokenIssuer

from ..facts import OperatorSettings
from . import parts


def policy(namespace: str, settings: OperatorSettings) -> CallerPolicy | None:
    """Return the policy of a namespace's gateway; None if everybody may send requests."""
    access = settings.access
    if access is None:
        return None
    issuers = access.issuers
    if settings.cluster_issuer is not None:
        grants = [_granted(namespace, grant) for grant in access.service_accounts]
        # Whoever may create tokens of the gateway's own ServiceAccount administers the namespace:
        # this is how `fourways` shows that it may ask everything.
        grants.append(ScopeGrant(subject=_subject(namespace, parts.GATEWAY), scopes=("*:*",)))
        if settings.subject:
            grants.append(ScopeGrant(subject=settings.subject, scopes=("read:*",)))
        cluster = TokenIssuer(
            issuer=settings.cluster_issuer.issuer,
            audience=access.audience,
            jwks=settings.cluster_issuer.jwks,
            grants=tuple(grants),
        )
        issuers = (cluster, *issuers)
    return CallerPolicy(issuers=issuers, anonymous=access.anonymous)


def ports(settings: OperatorSettings) -> set[int]:
    """Return the ports at which a gateway reads the keys of issuers."""
    issuers = settings.access.issuers if settings.access is not None else ()
    return {urlsplit(one.jwks_uri).port or 443 for one in issuers if one.jwks_uri is not None}


def _granted(namespace: str, grant: ServiceAccountGrant) -> ScopeGrant:
    return ScopeGrant(
        subject=_subject(grant.namespace or namespace, grant.name),
        scopes=grant.scopes,
        requests_per_second=grant.requests_per_second,
    )


def _subject(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"
