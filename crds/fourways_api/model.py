"""The model a deployment serves: where it is, how to know it is the right one, what it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .addresses import FileUri
from .base import ApiModel, Rule
from .values import Digest, ObjectName, Text

ModelFormat = Literal["onnx", "skops", "xgboost", "lightgbm", "python"]

PythonClass = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
        max_length=253,
    ),
]


class SecretReference(ApiModel):
    """A Secret in the same namespace. The kubelet mounts it; the operator never reads it."""

    secret_name: ObjectName
    """Name of the Secret. Its keys are mounted as files."""


class ModelReference(ApiModel):
    """The model artefact."""

    uri: FileUri
    """Where the model file is: file, pvc (pvc://CLAIM/PATH), http(s), s3, gs, az or oci."""

    digest: Digest | None = None
    """sha256 of the file. Required for remote URIs unless digestPolicy is TrustOnFirstUse."""

    digest_policy: Literal["Required", "TrustOnFirstUse"] = "Required"
    """TrustOnFirstUse accepts the first download and pins its digest in status."""

    format: ModelFormat = "onnx"
    """What the file is. No format here can run code when it is loaded, except python, whose
    code comes with an image of yours."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=63)]
    """Your name for this version; every stored prediction carries it."""

    python_class: PythonClass | None = None
    """For format python: MODULE:CLASS with the load and predict methods of kserve.Model."""

    credentials: SecretReference | None = None
    """Credentials for the URI, from a mounted Secret."""

    max_size_mi_b: Annotated[int, Field(ge=1, le=1_048_576, alias="maxSizeMiB")] = 2048
    """A download larger than this is refused."""

    allow_external_data: bool = False
    """Let an ONNX model keep weights in files beside it, within its own folder."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.digestPolicy != 'Required' || has(self.digest)"
            " || self.uri.startsWith('file://') || self.uri.startsWith('pvc://')",
            "a remote model has no digest",
            "set digest to the file's sha256, or digestPolicy to TrustOnFirstUse",
            ".digest",
            "FieldValueRequired",
        ),
        Rule(
            "(self.format == 'python') == has(self.pythonClass)",
            "pythonClass and format python go together",
            "set both, or neither",
            ".pythonClass",
        ),
    )


__all__ = ["ModelFormat", "ModelReference", "SecretReference", "Text"]
