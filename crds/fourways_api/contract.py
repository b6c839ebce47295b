"""The data contract: what goes into a model, what comes out, and which key joins the two.

The same contract types the store's columns, the gateway's answers and every reject's reason.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .addresses import FileUri
from .base import ApiModel, Rule, no_two_share
from .model import SecretReference
from .schema_hints import keyed_by
from .values import DataType, Digest, FieldName, KeyType, Text

Number = Annotated[float, Field(allow_inf_nan=False)]
Shape = Annotated[tuple[Annotated[int, Field(ge=1, le=1_048_576)], ...], Field(max_length=4)]
Category = Annotated[str, Field(max_length=128)]
Categories = Annotated[tuple[Category, ...], Field(min_length=1, max_length=512)]
TensorName = Annotated[str, Field(min_length=1, max_length=253)]


class Range(ApiModel):
    """Closed bounds of a number. A value outside is a reject."""

    min: Number | None = None
    """Smallest value allowed."""

    max: Number | None = None
    """Largest value allowed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.min) || has(self.max)", "the range has no bound", "set min, max or both"),
        Rule(
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "min is above max",
            "swap them",
        ),
    )


class InputField(ApiModel):
    """One named input of the model."""

    name: FieldName
    """Name of the input: a column of the source, a tensor of a request."""

    type: DataType
    """Type of each element."""

    shape: Shape = ()
    """Shape of one record's value; empty for a single number or string."""

    nullable: bool = False
    """Accept missing values. They reach the model as NaN or as an empty string."""

    range: Range | None = None
    """Bounds for numbers."""

    categories: Categories | None = None
    """The strings allowed."""

    tensor: TensorName | None = None
    """Model input this field feeds. Fields that name the same tensor become its columns, in
    order. Default: the input of the same name, else all fields fill the model's only input."""

    description: Text | None = None
    """For people."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.range) || !(self.type in ['string', 'bool'])",
            "only numbers have a range",
            "remove range, or give a numeric type",
            ".range",
        ),
        Rule(
            "!has(self.categories) || self.type == 'string'",
            "only strings have categories",
            "remove categories, or set type to string",
            ".categories",
        ),
        Rule(
            "!has(self.nullable) || !self.nullable"
            " || self.type in ['float32', 'float64', 'string']",
            "a missing value cannot be told to the model in this type",
            "use float32, float64 or string, or set nullable to false",
            ".nullable",
        ),
    )


class OutputField(ApiModel):
    """One named output, a typed column of the prediction store."""

    name: FieldName
    """Name of the output: a column of the store, a tensor of an answer."""

    type: DataType
    """Type of each element as stored and answered."""

    shape: Shape = ()
    """Shape of one record's value; empty for a single number or string."""

    tensor: TensorName | None = None
    """Model output this field is read from. Default: the output of the same name."""

    column: Annotated[int, Field(ge=0, le=1_048_575)] | None = None
    """Take this column of the model's output (for example 1 for the positive class)."""

    reduce: Literal["ArgMax", "Max"] | None = None
    """Reduce the model's output along its last axis: to the index of its largest value, or to
    that value."""

    categories: Categories | None = None
    """Labels by index: a whole number from the model is stored as its label."""

    range: Range | None = None
    """Bounds the answer must keep; a prediction outside is a reject."""

    description: Text | None = None
    """For people."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.column) || !has(self.reduce)",
            "column and reduce exclude each other",
            "keep one of them",
            ".column",
        ),
        Rule(
            "!has(self.categories) || self.type == 'string'",
            "labels are strings",
            "set type to string",
            ".type",
        ),
        Rule(
            "!has(self.range) || !(self.type in ['string', 'bool'])",
            "only numbers have a range",
            "remove range, or give a numeric type",
            ".range",
        ),
    )


class EntityKey(ApiModel):
    """The key predictions are stored and looked up by."""

    name: FieldName
    """Column of the source that holds the key."""

    type: KeyType = "string"
    """Type of the key."""


class GoldenVectors(ApiModel):
    """Known inputs with their known answers. A model that answers otherwise never takes over."""

    uri: FileUri
    """A JSON Lines file, a line a vector: {"inputs": {NAME: VALUE}, "outputs": {NAME: VALUE}}."""

    digest: Digest | None = None
    """sha256 of the file."""

    absolute_tolerance: Annotated[float, Field(ge=0, le=1e9)] = 1e-5
    """Allowed difference of numbers: absolute + relative x |expected|."""

    relative_tolerance: Annotated[float, Field(ge=0, le=1e9)] = 1e-4
    """Allowed difference of numbers in relation to the expected value."""

    credentials: SecretReference | None = None
    """Credentials for the URI, from a mounted Secret."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.digest) || self.uri.startsWith('file://') || self.uri.startsWith('pvc://')",
            "remote golden vectors have no digest",
            "set digest to the file's sha256",
            ".digest",
            "FieldValueRequired",
        ),
    )


class Contract(ApiModel):
    """What goes in, what comes out, and the key that joins them."""

    entity_key: EntityKey
    """The key predictions are stored and looked up by."""

    inputs: Annotated[tuple[InputField, ...], Field(min_length=1, max_length=256), keyed_by("name")]
    """The model's inputs, in the model's order."""

    outputs: Annotated[
        tuple[OutputField, ...], Field(min_length=1, max_length=64), keyed_by("name")
    ]
    """The answers."""

    golden_vectors: GoldenVectors | None = None
    """Known inputs with known answers, checked before a model is used."""

    rules: ClassVar[tuple[Rule, ...]] = (
        no_two_share("inputs", "name", "two inputs share a name", "give each input its own name"),
        no_two_share(
            "outputs", "name", "two outputs share a name", "give each output its own name"
        ),
        Rule(
            "!self.outputs.exists(f, f.name == self.entityKey.name)",
            "an output has the entity key's name",
            "rename the output",
            ".outputs",
        ),
        Rule(
            "self.inputs.all(f, has(f.tensor)) || !self.inputs.exists(f, has(f.tensor))",
            "some inputs name a tensor and some do not",
            "set tensor on every input, or on none",
            ".inputs",
        ),
        Rule(
            "self.entityKey == oldSelf.entityKey",
            "the entity key cannot change: stored predictions are found by it",
            "create a new ModelDeployment",
            ".entityKey",
        ),
    )
