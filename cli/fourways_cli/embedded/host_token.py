"""The host's own token for its gateways, where these ask for credentials.

A gateway with ``--keys`` refuses requests without a key, and the host has none of its user's. So it
signs a token with a key pair of its own, whose public half is in the gateways' configuration. The
private half stays in this process.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

from fourways_api.callers import ScopeGrant, TokenIssuer

_ISSUER, _AUDIENCE, _SUBJECT = "fourways-up", "fourways", "host"
_VALID_SECONDS = 300.0


class HostToken:
    """A key pair that is made when it is first needed: without ``--keys`` it never is."""

    @cached_property
    def _key(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        return generate_private_key(SECP256R1())

    @cached_property
    def issuer(self) -> TokenIssuer:
        """What gateways verify the token by: it may read, and nothing else."""
        from jwt.algorithms import ECAlgorithm

        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return TokenIssuer(
            issuer=_ISSUER,
            audience=_AUDIENCE,
            jwks={"keys": [{**public, "kid": _SUBJECT}]},
            grants=(ScopeGrant(subject=_SUBJECT, scopes=("read:*",)),),
        )

    def header(self) -> str:
        """Return the header line that a request of the host carries."""
        import jwt

        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": _SUBJECT,
            "exp": time.time() + _VALID_SECONDS,
        }
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": _SUBJECT})
        return f"Authorization: Bearer {token}\r\n"
