"""Secrets and claims of a cluster, as far as a laptop was given them.

What can be made is made in the state folder, and said: a key that signs bundles, a claim they are
published to. What cannot be made is asked for before anything starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from fourways_api import FeatureLookup, ModelDeployment

SIGNING_KEY = "signing-key.pem"
PUBLIC_KEY = "public-key.pem"


class SecretNotGiven(RuntimeError):
    """A deployment reads a Secret nobody gave; the text says how to give it."""


def check_databases(deployments: Iterable[ModelDeployment], secrets: Mapping[str, Path]) -> None:
    """See that the addresses of databases were given. Raises SecretNotGiven."""
    for deployment in deployments:
        for name, use, addresses in _databases(deployment):
            if name not in secrets:
                raise SecretNotGiven(
                    f"{deployment.metadata.name} {use} the database of Secret {name}: give it as "
                    f"--secret {name}=FOLDER, a folder with a file uri that holds {addresses}"
                )


def _databases(deployment: ModelDeployment) -> Iterator[tuple[str, str, str]]:
    """Yield the Secret of each database used, what for, and what its address may be."""
    mode, batch = deployment.spec.choice().mode, deployment.spec.batch
    if features := _features(deployment):
        addresses = "postgresql://… or sqlite:///PATH"
        yield features.database.secret_name, "looks features up in", addresses
    if mode == "batch" and batch and batch.source.query:
        yield batch.source.query.database.secret_name, "reads its rows from", "postgresql://…"
    if mode == "batch" and batch and batch.sink and batch.sink.table:
        yield batch.sink.table.database.secret_name, "publishes into", "postgresql://…"


def bundle_claims(deployments: Iterable[ModelDeployment], state: Path) -> dict[str, Path]:
    """Return the claims bundles are published to, as folders of the host's own."""
    claims = {
        urlsplit(deployment.spec.edge.publish).netloc
        for deployment in deployments
        if _is_edge(deployment)
        and deployment.spec.edge
        and deployment.spec.edge.publish.startswith("pvc://")
    }
    return {claim: state / "bundles" / claim for claim in sorted(claims)}


def signing_keys(deployments: Iterable[ModelDeployment], state: Path) -> dict[str, Path]:
    """Return the Secrets bundles are signed with, as folders of the host's own."""
    names = {
        deployment.spec.edge.signing.secret_name
        for deployment in deployments
        if _is_edge(deployment) and deployment.spec.edge
    }
    return {name: state / "keys" / name for name in sorted(names)}


def make_signing_key(folder: Path) -> Path:
    """Put a new EC key into a folder that has none, and its public half; return the latter."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = folder / SIGNING_KEY, folder / PUBLIC_KEY
    if not (private.is_file() and public.is_file()):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        private.touch(mode=0o600)
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return public


def _features(deployment: ModelDeployment) -> FeatureLookup | None:
    mode, spec = deployment.spec.choice().mode, deployment.spec
    if mode == "realtime" and spec.realtime:
        return spec.realtime.features
    return spec.edge.features if mode == "edge" and spec.edge else None


def _is_edge(deployment: ModelDeployment) -> bool:
    return deployment.spec.choice().mode == "edge"
