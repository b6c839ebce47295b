"""The ModelDeployment: its metadata, spec and status."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from .base import ApiModel, Rule
from .spec import Spec
from .status import Status
from .values import LabelKey, LabelValue

GROUP = "fourways.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"

CONTINUES = f"{GROUP}/continues"
"""Annotation with the uid of a former deployment of the same name, whose data in the prediction
store this one continues: after a restore into another cluster, or after a deletion by mistake."""

MAX_NAME = 43
"""A CronJob's name has at most 52 characters; suffixes such as -realtime need the rest."""

NAME_PATTERN = "^[a-z]([a-z0-9-]*[a-z0-9])?$"
"""A deployment's name matches it, as that of a Service."""


class Metadata(ApiModel):
    """The object metadata that Fourways reads."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _continues_a_uid(self) -> Metadata:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.annotations.get(CONTINUES, "a")):
            raise ValueError(
                f"annotations: {CONTINUES} is not a uid; set it to the uid of a former deployment "
                "of this name, or remove it"
            )
        return self

    @property
    def data_uid(self) -> str:
        """The uid to which the deployment's data in the prediction store belongs."""
        return self.annotations.get(CONTINUES, self.uid)


class ModelDeployment(ApiModel):
    """A trained model, its data contract and how it serves predictions."""

    api_version: Literal["fourways.dev/v1alpha1"]
    kind: Literal["ModelDeployment"]
    metadata: Metadata
    spec: Spec
    status: Status | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME}",
            f"the name is longer than {MAX_NAME} characters",
            "shorten metadata.name: names of Jobs are derived from it",
            ".metadata.name",
        ),
        Rule(
            f"self.metadata.name.matches('{NAME_PATTERN}')",
            "the name is not a valid name of a Service",
            "use lower case letters, digits and -, and start with a letter",
            ".metadata.name",
        ),
    )

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    def to_yaml(self) -> str:
        """Return a manifest with the fields that were given."""
        from .yaml_text import dump_yaml

        return dump_yaml(
            self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
        )
