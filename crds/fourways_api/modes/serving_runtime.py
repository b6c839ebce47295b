"""A model server of KServe instead of ours, in the real-time mode."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..base import ApiModel
from ..values import ObjectName, Text

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=253)]


class ServingRuntimeReference(ApiModel):
    """A serving runtime of KServe, for models that the Fourways model server does not run."""

    model_format: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)]
    """Format of the model by KServe's name, such as tensorflow, triton, pmml or huggingface."""

    name: ObjectName | None = None
    """Name of the ServingRuntime or ClusterServingRuntime. Without it, KServe picks one by
    modelFormat."""

    protocol_version: Literal["v1", "v2"] | None = None
    """Version of the inference protocol that the runtime must speak. Without it, KServe picks a
    runtime of v1."""

    model_name: ModelName | None = None
    """Name of the model in the runtime's paths. Without it: NAME-realtime, which KServe passes to
    its runtimes."""

    args: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Additional arguments of the runtime's container. KServe fills in templates such as
    {{.Name}}."""
