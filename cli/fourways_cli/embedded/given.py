"""The Secrets and claims that deployments need, and those that the host can create itself.

It creates a key that signs bundles, and a folder for the claim that they are published to. The user
must give the addresses of databases; a missing one is reported before anything starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from fourways_api import FeatureLookup, ModelDeployment
from fourways_api.audience import DEPLOYMENTS_KEY, EVERY_DEPLOYMENT

SIGNING_KEY = "signing-key.pem"
PUBLIC_KEY = "public-key.pem"


class HostLacks(RuntimeError):
    """A deployment needs what the host does not have; the text says what to do."""


def check_needs(deployments: Iterable[ModelDeployment], secrets: Mapping[str, Path]) -> None:
    """Check that the addresses of databases were given, and that no KServe is needed.

    Raises HostLacks.
    """
    for deployment in deployments:
        realtime = deployment.spec.realtime
        if deployment.spec.choice().mode == "realtime" and realtime and realtime.runtime:
            raise HostLacks(
                f"{deployment.metadata.name} is served by a runtime of KServe (realtime.runtime),"
                " which needs a cluster: use kubectl apply, or remove realtime.runtime"
            )
        if deployment.spec.model.image_path is not None:
            raise HostLacks(
                f"{deployment.metadata.name} has its model in an image (model.imagePath), which the"
                " node of a cluster mounts: use kubectl apply, or the model's file as the uri"
            )
        for name, use, addresses in _databases(deployment):
            if name not in secrets:
                raise HostLacks(
                    f"{deployment.metadata.name} {use} the database of Secret {name}: give it as "
                    f"--secret {name}=FOLDER, a folder with a file uri that holds {addresses}"
                )


def _databases(deployment: ModelDeployment) -> Iterator[tuple[str, str, str]]:
    """Yield the Secret of each database, its purpose, and the format of its address."""
    mode, batch = deployment.spec.choice().mode, deployment.spec.batch
    if features := _features(deployment):
        addresses = "postgresql://…, redis://…, feast://… or sqlite:///PATH"
        yield features.database.secret_name, "looks features up in", addresses
    if mode == "batch" and batch and batch.source.query:
        yield batch.source.query.database.secret_name, "reads its rows from", "postgresql://…"
    quality = deployment.spec.quality
    truth = quality.truth.query if quality and quality.truth else None
    if mode != "edge" and truth:
        yield truth.database.secret_name, "reads its labels from", "postgresql://…"
    if mode == "batch" and batch and batch.sink and batch.sink.table:
        yield batch.sink.table.database.secret_name, "publishes into", "postgresql://…"


def bundle_claims(deployments: Iterable[ModelDeployment], state: Path) -> dict[str, Path]:
    """Return the claims that bundles are published to, as folders of the state folder."""
    claims = {
        urlsplit(deployment.spec.edge.publish).netloc
        for deployment in deployments
        if _is_edge(deployment)
        and deployment.spec.edge
        and deployment.spec.edge.publish.startswith("pvc://")
    }
    return {claim: state / "bundles" / claim for claim in sorted(claims)}


def signing_keys(deployments: Iterable[ModelDeployment], state: Path) -> dict[str, Path]:
    """Return the Secrets that bundles are signed with, as folders of the state folder."""
    names = {
        deployment.spec.edge.signing.secret_name
        for deployment in deployments
        if _is_edge(deployment) and deployment.spec.edge
    }
    return {name: state / "keys" / name for name in sorted(names)}


def make_signing_key(folder: Path) -> Path:
    """Write a new EC key pair to a folder that has none; return the public key's path."""
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
    # Also for a key that an earlier version made.
    (folder / DEPLOYMENTS_KEY).write_text(EVERY_DEPLOYMENT)
    return public


def _features(deployment: ModelDeployment) -> FeatureLookup | None:
    mode, spec = deployment.spec.choice().mode, deployment.spec
    if mode == "realtime" and spec.realtime:
        return spec.realtime.features
    return spec.edge.features if mode == "edge" and spec.edge else None


def _is_edge(deployment: ModelDeployment) -> bool:
    return deployment.spec.choice().mode == "edge"
