"""What is watched of the records that a model scores, against those it was trained on."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .addresses import FileUri
from .base import ApiModel, Rule
from .model import SecretReference
from .values import Digest, Duration


class ProfileFile(ApiModel):
    """The training profile: how the values of inputs and outputs were distributed in training."""

    uri: FileUri
    """URI of the JSON file that fourways init --sample writes."""

    digest: Digest | None = None
    """sha256 digest of the file. Required for remote URIs."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the URI."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.digest) || self.uri.startsWith('file://') || self.uri.startsWith('pvc://')",
            "a remote profile requires a digest",
            "set digest to the sha256 of the file",
            ".digest",
            "FieldValueRequired",
        ),
    )


class Monitoring(ApiModel):
    """Comparison of the records that are scored with those of the training (drift)."""

    profile: ProfileFile
    """The training profile with which records are compared."""

    window: Duration = "1h"
    """Records of this time are compared (modes realtime, streaming and edge). Mode batch compares
    those of each run."""

    max_drift: Annotated[float, Field(gt=0, le=100)] = 0.2
    """Maximum population stability index of any input or output against the training profile. 0.1
    is a small shift, 0.25 a large one. A difference that so few records may show by chance is no
    drift."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "duration(self.window) >= duration('1m') && duration(self.window) <= duration('168h')",
            "window is shorter than 1m or longer than 168h",
            "set a window such as 1h",
            ".window",
        ),
    )
