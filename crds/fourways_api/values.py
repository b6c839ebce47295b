"""The scalar types of the API, each with the pattern that the API server also enforces."""

from __future__ import annotations

import re
from decimal import Decimal
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from .addresses import SUBDOMAIN
from .schema_hints import INT_OR_STRING

# Three engines read the patterns (Rust here, Go's RE2 in the API server, browsers in editors). So
# none uses \w or \s, whose meaning differs between them, and all are anchored with ^ and $.

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
"""A Kubernetes object name (RFC 1123 label)."""

ObjectName = Annotated[str, Field(pattern=f"^{SUBDOMAIN}$", max_length=253)]
"""The name of a Secret and most other Kubernetes objects (RFC 1123 subdomain)."""

QueueName = Annotated[str, Field(pattern=f"^{SUBDOMAIN}$", max_length=63)]
"""The name of an object that is also the value of a label."""

FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
"""A name of the data contract: it becomes a column, so it is an SQL identifier too."""

LabelKey = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?([A-Za-z0-9][A-Za-z0-9._-]*)?[A-Za-z0-9]$",
        max_length=317,
    ),
]
"""The key of a label: an optional DNS name and ``/``, then a name."""

LabelValue = Annotated[
    str, Field(pattern=r"^(([A-Za-z0-9][A-Za-z0-9._-]*)?[A-Za-z0-9])?$", max_length=63)
]

ResourceName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
        max_length=317,
    ),
]
"""The name of a resource that nodes offer beside CPU and memory: a DNS name, ``/`` and a name."""

Text = Annotated[str, Field(max_length=1024)]

Digest = Annotated[str, Field(pattern=r"^sha256:[a-f0-9]{64}$", max_length=71)]

Duration = Annotated[
    str,
    Field(
        pattern=r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$",
        min_length=2,
        max_length=32,
    ),
]
"""A duration such as ``250ms``, ``90s`` or ``1h30m``. As everywhere in Kubernetes, the largest
unit is the hour: CEL compares such durations and has no days."""


class _Cores:
    """Accepts a whole number in place of its text, here and in the API server's schema."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Convert a whole number to text before any other validation."""
        return core_schema.no_info_before_validator_function(_whole_number_as_text, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Also allow an integer, within the limits that the pattern of the text sets."""
        text = {k: v for k, v in handler(schema).items() if k != "type"}
        return text | {INT_OR_STRING: True, "minimum": 1, "maximum": 9999}


def _whole_number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


CpuQuantity = Annotated[
    str,
    Field(
        pattern=r"^([1-9][0-9]{0,5}m|[1-9][0-9]{0,3}(\.[0-9]{1,3})?"
        r"|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))$",
        max_length=12,
    ),
    _Cores(),
]
"""An amount of CPU in cores (``2``, ``0.5``) or millicores (``500m``)."""

MemoryQuantity = Annotated[
    str,
    Field(
        pattern=r"^([1-9][0-9]{0,8}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))"
        r"(Mi|Gi|Ti|M|G|T)$",
        max_length=16,
    ),
]
"""An amount of memory (``512Mi``, ``1.5Gi``). The suffix is required: 512 would mean bytes."""

_EXACT_IN_FLOAT64 = 2**53
_MAX_MISSING_TEXT = 128


class _MissingValue:
    """Accepts a whole number or a text, here and in the API server's schema."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate the value as one field: the errors of a union would name its members."""
        return core_schema.no_info_plain_validator_function(_missing_value)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Write the schema, since a structural schema cannot express the union."""
        return {
            INT_OR_STRING: True,
            "minimum": -_EXACT_IN_FLOAT64,
            "maximum": _EXACT_IN_FLOAT64,
            "maxLength": _MAX_MISSING_TEXT,
        }


def _missing_value(value: object) -> int | str:
    match value:
        case bool():
            pass
        case int() if value > _EXACT_IN_FLOAT64:
            raise PydanticKnownError("less_than_equal", {"le": _EXACT_IN_FLOAT64})
        case int() if value < -_EXACT_IN_FLOAT64:
            raise PydanticKnownError("greater_than_equal", {"ge": -_EXACT_IN_FLOAT64})
        case str() if len(value) > _MAX_MISSING_TEXT:
            raise PydanticKnownError("string_too_long", {"max_length": _MAX_MISSING_TEXT})
        case int() | str():
            return value
    raise PydanticKnownError("string_type")


MissingValue = Annotated[int | str, _MissingValue()]
"""How a model represents a missing value: ``NaN``, another text, or a whole number."""

Schedule = Annotated[str, Field(min_length=1, max_length=128)]
"""A five-field cron line, or ``@hourly``, ``@daily`` and so on (see ``cron.py``)."""

LOCAL_SCHEMES = frozenset({"file", "pvc"})

DataType = Literal[
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "string",
]
"""A type of the data contract, with its numpy name."""

InputType = Literal[
    DataType,
    "bytes",
    "date",
    "timestamp_s",
    "timestamp_ms",
    "timestamp_us",
    "timestamp_ns",
]
"""A type of an input. A model receives dates as days since 1970, times as the named unit since 1970
UTC, both as int64."""

KeyType = Literal["string", "int64"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MEMORY = {"M": 10**6, "G": 10**9, "T": 10**12, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def seconds(duration: str) -> float:
    """Convert a :data:`Duration` to seconds."""
    return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h)", duration))


def cores(quantity: str) -> float:
    """Convert a :data:`CpuQuantity` to cores."""
    return float(Decimal(quantity[:-1]) / 1000 if quantity.endswith("m") else Decimal(quantity))


def bytes_of(quantity: str) -> int:
    """Convert a :data:`MemoryQuantity` to whole bytes, rounded up as Kubernetes does."""
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", quantity).groups()  # type: ignore[union-attr]
    return ceil(Decimal(number) * _MEMORY[suffix])


def scheme(uri: str) -> str:
    """Return the part of a URI before ``://``."""
    return uri.partition("://")[0]
