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
    """What a device can spare."""

    size_mi_b: Annotated[int, Field(ge=1, le=1_048_576, alias="sizeMiB")]
    """Bundle size at the most."""

    memory_mi_b: Annotated[int, Field(ge=1, le=1_048_576, alias="memoryMiB")]
    """Peak memory at the most."""

    latency_ms: Annotated[float, Field(gt=0, le=600_000)]
    """Median time of one prediction at the most."""

    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Share of golden vectors the optimised model must answer like the original."""


class EdgeTarget(ApiModel):
    """A kind of device."""

    name: Name
    """Name of this kind of device."""

    platform: Literal["linux/amd64", "linux/arm64"] = "linux/amd64"
    """What the device runs."""

    budget: Budget
    """What the device can spare."""


class Edge(ApiModel):
    """Build a signed bundle that devices fetch and answer from offline."""

    targets: Annotated[tuple[EdgeTarget, ...], Field(min_length=1, max_length=16), keyed_by("name")]
    """The kinds of device to build for."""

    signing: SecretReference
    """Secret with the EC private key (P-256, PEM) under the key signing-key.pem."""

    publish: FolderUri
    """Folder the bundles are published to, from where the gateway serves them to devices."""

    credentials: SecretReference | None = None
    """Credentials for the folder, from a mounted Secret."""

    features: FeatureLookup | None = None
    """Inputs devices may ask the gateway for by entity key while they are online."""

    description: Text | None = None
    """For people."""

    rules: ClassVar[tuple[Rule, ...]] = (
        no_two_share(
            "targets", "name", "two targets share a name", "give each target its own name"
        ),
    )
