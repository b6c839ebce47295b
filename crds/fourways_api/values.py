"""The scalar types the API is written in, each with the pattern the API server enforces too."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
"""A Kubernetes object name (RFC 1123 label)."""

FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
"""A name of the data contract: it becomes a column, so it is an SQL identifier too."""

Text = Annotated[str, Field(max_length=1024)]

Digest = Annotated[str, Field(pattern=r"^sha256:[a-f0-9]{64}$", max_length=71)]

Duration = Annotated[str, Field(pattern=r"^([0-9]+(ms|s|m|h|d))+$", max_length=32)]
"""A length of time such as ``250ms``, ``90s``, ``1h30m`` or ``2d``."""

CpuQuantity = Annotated[
    str, Field(pattern=r"^([1-9][0-9]*m|[1-9][0-9]*(\.[0-9]{1,3})?|0\.[0-9]{1,3})$", max_length=12)
]
"""An amount of CPU in cores (``2``, ``0.5``) or millicores (``500m``)."""

MemoryQuantity = Annotated[
    str, Field(pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti|k|M|G|T)?$", max_length=16)
]
"""An amount of memory in bytes, with an optional suffix (``512Mi``, ``2Gi``)."""

Schedule = Annotated[str, Field(min_length=1, max_length=128)]
"""A five-field cron line, or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``."""

Uri = Annotated[
    str,
    Field(pattern=r"^(file|pvc|https?|s3|gs|az|oci)://[^\s]+$", max_length=2048),
]
"""Where something is: ``file``, ``pvc`` (``pvc://CLAIM/PATH``), ``http(s)``, ``s3``, ``gs``,
``az`` or ``oci``."""

LOCAL_SCHEMES = frozenset({"file", "pvc"})

DataType = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float32", "float64", "string",
]  # fmt: skip
"""A type of the data contract, named as numpy names it."""

KeyType = Literal["string", "int64"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEMORY = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
           "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}  # fmt: skip


def seconds(duration: str) -> float:
    """Convert a :data:`Duration` to seconds."""
    return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h|d)", duration))


def cores(quantity: str) -> float:
    """Convert a :data:`CpuQuantity` to cores."""
    return float(Decimal(quantity[:-1]) / 1000 if quantity.endswith("m") else Decimal(quantity))


def bytes_of(quantity: str) -> int:
    """Convert a :data:`MemoryQuantity` to bytes."""
    number, suffix = re.fullmatch(r"(\d+)(\D*)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * _MEMORY[suffix]


def scheme(uri: str) -> str:
    """Return the part of a URI before ``://``."""
    return uri.partition("://")[0]
