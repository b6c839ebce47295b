"""Files that belong to a contract: golden vectors, labels, and the tokenizer."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .addresses import FileUri
from .base import ApiModel, Rule
from .model import SecretReference
from .values import Digest


class GoldenVectors(ApiModel):
    """Known inputs with their expected outputs. A model that gives other outputs is not used."""

    uri: FileUri
    """URI of a JSON Lines file. Each line is a vector: {"inputs": {NAME: VALUE}, "outputs": {NAME:
    VALUE}}."""

    digest: Digest | None = None
    """sha256 digest of the file. Required for remote URIs."""

    absolute_tolerance: Annotated[float, Field(ge=0, le=1e9)] = 1e-5
    """Absolute tolerance. A number may differ by absoluteTolerance + relativeTolerance x
    |expected|."""

    relative_tolerance: Annotated[float, Field(ge=0, le=1e9)] = 1e-4
    """Relative tolerance, as a share of the expected value."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the URI."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.digest) || self.uri.startsWith('file://') || self.uri.startsWith('pvc://')",
            "remote golden vectors require a digest",
            "set digest to the sha256 of the file",
            ".digest",
            "FieldValueRequired",
        ),
    )


class LabelFile(ApiModel):
    """Labels by index, in a file: for outputs of type string that have no categories."""

    uri: FileUri
    """URI of a text file in UTF-8 with one label per line. The first line is the label of 0."""

    digest: Digest
    """sha256 digest of the file."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the URI."""


class TokenizerFile(ApiModel):
    """The tokenizer of the inputs with tokens: tokenizer.json of the library tokenizers."""

    uri: FileUri
    """URI of the file."""

    digest: Digest
    """sha256 digest of the file."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the URI."""
