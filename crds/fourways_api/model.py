"""The model of a deployment: its location, digest, format and version."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .addresses import FileUri
from .base import ApiModel, Rule
from .values import Digest, Duration, ObjectName, Text

ModelFormat = Literal["onnx", "skops", "xgboost", "lightgbm", "litert", "python"]

PythonClass = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
        max_length=253,
    ),
]


ImagePath = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$", max_length=512
    ),
]


class SecretReference(ApiModel):
    """A Secret in the same namespace. Workers mount it; the operator never reads it."""

    secret_name: ObjectName
    """Name of the Secret. Its keys fourways.dev-deployments and fourways.dev-hosts list who may use
    it and where it may be sent; fourways secret create writes them."""


class ModelReference(ApiModel):
    """The model file and how to verify it."""

    uri: FileUri
    """URI of the model file. Schemes: file, pvc (pvc://CLAIM/PATH), http, https, s3, gs, az and
    oci."""

    image_path: ImagePath | None = None
    """Path of the file in the image that uri names (oci). The node then pulls the image and mounts
    it: it keeps it, so further pods of the node download nothing. Without it, the worker downloads
    the file. The image must match one of the patterns in the chart's images.allowed."""

    digest: Digest | None = None
    """sha256 digest of the file. Required for remote URIs unless digestPolicy is
    TrustOnFirstUse."""

    digest_policy: Literal["Required", "TrustOnFirstUse"] = "Required"
    """Required refuses a remote model without a digest. TrustOnFirstUse accepts the first download
    and pins its digest in the status."""

    format: ModelFormat = "onnx"
    """Format of the file. Only python can run code when the model is loaded, and that code comes
    with your own image."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=63)]
    """Version of the model. It is stored with every prediction."""

    python_class: PythonClass | None = None
    """Class of a model of format python, as MODULE:CLASS. It has the load and predict methods of
    kserve.Model."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the URI."""

    max_size_mi_b: Annotated[int, Field(ge=1, le=1_048_576, alias="maxSizeMiB")] = 2048
    """Maximum size of the download, in MiB."""

    allow_external_data: bool = False
    """Allow an ONNX model to keep weights in separate files in its folder."""

    call_timeout: Duration | None = None
    """Maximum time of a call into the model with a single row; with more rows, longer. A call that
    takes longer ends the process with ModelHangs. Default: 20s, in streaming 60s."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.digestPolicy != 'Required' || has(self.digest)"
            " || self.uri.startsWith('file://') || self.uri.startsWith('pvc://')",
            "a remote model requires a digest",
            "set digest to the sha256 of the file, or digestPolicy to TrustOnFirstUse",
            ".digest",
            "FieldValueRequired",
        ),
        Rule(
            "(self.format == 'python') == has(self.pythonClass)",
            "pythonClass and format python require each other",
            "set both, or neither",
            ".pythonClass",
        ),
        Rule(
            "!has(self.imagePath) || self.uri.startsWith('oci://')",
            "uri names no image, in which imagePath would be a file",
            "set uri to oci://HOST/REPOSITORY:TAG, or remove imagePath",
            ".imagePath",
        ),
        Rule(
            "!has(self.imagePath) || !has(self.credentials)",
            "the node pulls the image, which gets no credentials of ours",
            "remove credentials, and name a pull secret in spec.pod.imagePullSecrets",
            ".credentials",
        ),
        Rule(
            "!has(self.callTimeout) || duration(self.callTimeout) >= duration('1s')",
            "callTimeout is less than one second",
            "set it to 1s or more",
            ".callTimeout",
        ),
    )


__all__ = ["ModelFormat", "ModelReference", "SecretReference", "Text"]
