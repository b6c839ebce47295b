"""Settings of the edge mode: targets, their budgets, signing and publishing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..addresses import FolderUri
from ..base import ApiModel, Rule, no_two_share
from ..model import SecretReference
from ..schema_hints import keyed_by
from ..values import Name, Text
from .features import FeatureLookup


class Budget(ApiModel):
    """Resources that a device has for the bundle."""

    size_mi_b: Annotated[int, Field(ge=1, le=1_048_576, alias="sizeMiB")]
    """Maximum bundle size, in MiB."""

    memory_mi_b: Annotated[int, Field(ge=1, le=1_048_576, alias="memoryMiB")]
    """Maximum peak memory, in MiB."""

    latency_ms: Annotated[float, Field(gt=0, le=600_000)]
    """Maximum median time of one prediction, in milliseconds."""

    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Minimum share of golden vectors for which the optimised model agrees with the original."""


class EdgeTarget(ApiModel):
    """A kind of device."""

    name: Name
    """Name of the kind of device."""

    platform: Literal["linux/amd64", "linux/arm64"] = "linux/amd64"
    """Operating system and CPU of the device."""

    budget: Budget
    """Resources that the device has for the bundle."""

    variant: Literal["fp32", "int8"] | None = None
    """Variant of an ONNX model to publish. If it is not set, the build chooses one that fits the
    budget, and keeps it for the same model."""


class Edge(ApiModel):
    """Build a signed bundle with which devices answer offline."""

    targets: Annotated[tuple[EdgeTarget, ...], Field(min_length=1, max_length=16), keyed_by("name")]
    """Kinds of device for which bundles are built."""

    signing: SecretReference
    """Secret with the EC private key (P-256, PEM) in its key signing-key.pem, or with pkcs11-uri
    and pkcs11-pin for a key in an HSM."""

    publish: FolderUri
    """URI of the folder for the bundles, from which the gateway serves them. Schemes: pvc, s3, gs,
    az, and file with fourways up."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the folder."""

    features: FeatureLookup | None = None
    """Inputs that devices may request from the gateway by entity key while they are online."""

    description: Text | None = None
    """Description for people."""

    rules: ClassVar[tuple[Rule, ...]] = (
        no_two_share(
            "targets", "name", "two targets share a name", "give each target its own name"
        ),
    )
