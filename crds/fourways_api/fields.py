"""The fields of a contract: each input and output of the model, with its type, shape and bounds.

They define the types of the store's columns and the gateway's answers, and why a value is rejected.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticKnownError

from .base import ApiModel, Rule
from .image_input import ImageInput
from .text_input import TensorName, TokensInput
from .values import DataType, FieldName, InputType, MissingValue, Text

Number = Annotated[float, Field(allow_inf_nan=False)]
Shape = Annotated[tuple[Annotated[int, Field(ge=-1, le=1_048_576)], ...], Field(max_length=4)]
MAX_LABELS, MAX_LABEL_CHARACTERS = 10_000, 128
Category = Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)]
Categories = Annotated[tuple[Category, ...], Field(min_length=1, max_length=MAX_LABELS)]
"""The size of the whole contract is bounded too: it travels in a worker's environment."""

MAX_COLUMNS = 10_000
ColumnNames = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\{[0-9]{1,5}\.\.[0-9]{1,5}\})?$", max_length=63),
]
"""The name of a column, or of several: ``pixel{0..783}``."""


_GUESS = 256
"""Assumed size of a dimension that has any size, where memory is planned."""


_NO_DIMENSION_OF_ZERO = Rule(
    "!has(self.shape) || self.shape.all(size, size != 0)",
    "a dimension of the shape is 0",
    "use -1 for a dimension of any size",
    ".shape",
)


class Range(ApiModel):
    """Inclusive bounds of a number. A value outside of them is rejected."""

    min: Number | None = None
    """Minimum value."""

    max: Number | None = None
    """Maximum value."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.min) || has(self.max)", "the range has no bound", "set min, max or both"),
        Rule(
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "min is above max",
            "swap them",
        ),
    )


def _names(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of columns one by one. Raises PydanticKnownError if there are too many."""
    names: list[str] = []
    for text in columns:
        stem, _, ends = text.removesuffix("}").partition("{")
        first, _, last = ends.partition("..")
        numbers = range(int(first), int(last) + 1) if ends else range(0)
        if len(names) + len(numbers) > MAX_COLUMNS:
            facts = {
                "field_type": "Tuple",
                "max_length": MAX_COLUMNS,
                "actual_length": MAX_COLUMNS + 1,
            }
            raise PydanticKnownError("too_long", facts)
        names += [f"{stem}{number}" for number in numbers] if ends else [text]
    return tuple(names)


def _countable(columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if columns is not None and not _names(columns):
        raise PydanticKnownError(
            "too_short", {"field_type": "Tuple", "min_length": 1, "actual_length": 0}
        )
    return columns


class InputField(ApiModel):
    """One input of the model."""

    name: FieldName
    """Name of the input, which is a column of the source or a tensor of a request."""

    type: InputType
    """Data type of each element. A date or timestamp is ISO 8601 in JSON and tables, and the model
    receives it as int64: days, or the unit after the underscore, since 1970-01-01 UTC. bytes are
    raw (an image), and base64 in JSON."""

    shape: Shape = ()
    """Shape of the value of one record. Empty for a single number or string. -1 is a dimension of
    any size: records of the same size are scored together."""

    columns: Annotated[
        Annotated[tuple[ColumnNames, ...], Field(min_length=1, max_length=4096)] | None,
        AfterValidator(_countable),
    ] = None
    """Columns that this input stands for, in the model's order, each a single value of the type:
    names, or numbered ones as pixel{0..783}. A request has them as one tensor with this input's
    name or as one tensor per column; tables and events have each under its own name."""

    image: ImageInput | None = None
    """Decode an input of type bytes as an image (JPEG, PNG, WebP, BMP, GIF)."""

    tokens: TokensInput | None = None
    """Turn an input of type string into tokens, by the contract's tokenizer."""

    nullable: bool = False
    """Accept missing values. Unless `missing` is set, the model receives NaN for a number and an
    empty string for a text."""

    missing: MissingValue | None = None
    """What the model receives for a missing value: NaN or a whole number such as -999 for an input
    of numbers, a text such as None for an input of strings. An empty text is then missing too."""

    range: Range | None = None
    """Bounds of a numeric value. A value outside of them is rejected."""

    categories: Categories | None = None
    """Allowed strings. Any other value is rejected."""

    tensor: TensorName | None = None
    """Input tensor of the model that receives this field. Fields with the same tensor become its
    columns: by name where the model names its columns, otherwise in the order of the fields.
    Default: the tensor of the same name, or the model's only tensor."""

    description: Text | None = None
    """Description for people."""

    @property
    def is_number(self) -> bool:
        """Whether its elements are numbers, which dates and times are not."""
        return self.type.startswith(("int", "uint", "float"))

    @property
    def is_free(self) -> bool:
        """Whether a dimension of its shape has any size."""
        return -1 in self.shape

    @property
    def elements(self) -> int:
        """Number of elements of a record; an estimate if a dimension has any size."""
        if self.tokens is not None:
            return self.tokens.max_length
        shape = self.image.shape if self.image is not None else self.shape
        return prod(_GUESS if size == -1 else size for size in shape)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of its columns; empty if it is none but its own."""
        return _names(self.columns or ())

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of a record's value in a tensor of a request."""
        return (len(self.column_names),) if self.columns else self.shape

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.image) || (self.type == 'bytes' && !has(self.columns)"
            " && (!has(self.shape) || self.shape.size() == 0))",
            "image is for a single value of type bytes",
            "set type to bytes, without shape and columns, or remove image",
            ".image",
        ),
        Rule(
            "!has(self.tokens) || (self.type == 'string' && !has(self.columns)"
            " && (!has(self.shape) || self.shape.size() == 0))",
            "tokens are for a single value of type string",
            "set type to string, without shape and columns, or remove tokens",
            ".tokens",
        ),
        Rule(
            "!has(self.columns) || !has(self.shape) || self.shape.size() == 0",
            "columns and shape are both set",
            "remove shape: columns are single values",
            ".shape",
        ),
        _NO_DIMENSION_OF_ZERO,
        Rule(
            "!has(self.range) || self.type.startsWith('int') || self.type.startsWith('uint')"
            " || self.type.startsWith('float')",
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
            " || self.type in ['float16', 'float32', 'float64', 'string']",
            "this type cannot represent a missing value",
            "use float32, float64 or string, or set nullable to false",
            ".nullable",
        ),
        Rule(
            "!has(self.missing) || (has(self.nullable) && self.nullable)",
            "missing is set, and the input takes no missing values",
            "set nullable to true, or remove missing",
            ".missing",
        ),
        Rule(
            "!has(self.missing) || self.type != 'string' || type(self.missing) == string",
            "missing is a number, and the input holds strings",
            "put the value in quotes",
            ".missing",
        ),
        Rule(
            "!has(self.missing) || self.type == 'string' || type(self.missing) == int"
            " || self.missing == 'NaN'",
            "missing is a text, and the input holds numbers",
            "set it to NaN or to a whole number without quotes",
            ".missing",
        ),
    )


class OutputField(ApiModel):
    """One output of the model, which is a column of the prediction store."""

    name: FieldName
    """Name of the output, which is a column of the store and a tensor of an answer."""

    type: DataType
    """Data type of each element, as stored and answered."""

    shape: Shape = ()
    """Shape of the value of one record. Empty for a single number or string. -1 is a dimension of
    any size, also 0, in the modes that store no predictions: realtime and edge."""

    tensor: TensorName | None = None
    """Output tensor of the model that holds this field. Default: the tensor of the same name."""

    column: Annotated[int, Field(ge=0, le=1_048_575)] | None = None
    """Column of the output tensor, for example 1 for the positive class."""

    reduce: Literal["ArgMax", "Max", "TopK", "TopKMax"] | None = None
    """Reduce the output tensor along its last axis: to the index of the maximum (ArgMax), to the
    maximum (Max), or to the indices (TopK) or values (TopKMax) of the K greatest elements, in
    descending order, where K is the last dimension of shape."""

    threshold: Number | None = None
    """Least value for which the output is true, 1, or the second of two categories. Below it, it is
    false, 0, or the first."""

    categories: Categories | None = None
    """Labels by index. A whole number from the model is stored as its label."""

    range: Range | None = None
    """Bounds of the output. A prediction outside of them is rejected."""

    description: Text | None = None
    """Description for people."""

    @property
    def is_free(self) -> bool:
        """Whether a dimension of its shape has any size."""
        return -1 in self.shape

    @property
    def elements(self) -> int:
        """Number of elements of a record; an estimate if a dimension has any size."""
        return prod(_GUESS if size == -1 else size for size in self.shape)

    rules: ClassVar[tuple[Rule, ...]] = (
        _NO_DIMENSION_OF_ZERO,
        Rule(
            "!has(self.column) || !has(self.reduce)",
            "column and reduce cannot be combined",
            "keep one of them",
            ".column",
        ),
        Rule(
            "!has(self.reduce) || !self.reduce.startsWith('TopK')"
            " || (has(self.shape) && self.shape.size() > 0 && self.shape.all(size, size > 0))",
            "the number of greatest values is not said",
            "set shape to it, such as [5]",
            ".shape",
        ),
        Rule(
            "!has(self.threshold) || (!self.type.startsWith('float')"
            " && (self.type != 'string' || has(self.categories)))",
            "an output with a threshold is not a number",
            "set type to bool, or to string with two categories",
            ".threshold",
        ),
        Rule(
            "!has(self.threshold) || !has(self.categories) || self.categories.size() == 2",
            "a threshold decides between two labels",
            "give two categories: below the threshold, and from it on",
            ".categories",
        ),
        Rule(
            "!has(self.threshold) || !has(self.reduce) || !self.reduce.endsWith('K')"
            " && self.reduce != 'ArgMax'",
            "threshold compares values, and reduce returns an index",
            "use Max or TopKMax, or remove one of them",
            ".threshold",
        ),
        Rule(
            "!has(self.categories) || self.type == 'string'",
            "only a string has labels",
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
