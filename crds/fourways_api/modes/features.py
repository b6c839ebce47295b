"""Features that are looked up by entity key."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..base import ApiModel, Rule, longer_than_zero, no_two_share
from ..model import SecretReference
from ..schema_hints import keyed_by
from ..values import Duration, FieldName


class FeatureDefault(ApiModel):
    """Value of an input for which the database returns none in time."""

    name: FieldName
    """Name of the input."""

    number: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Value of a numeric input; 0 or 1 for bool."""

    text: Annotated[str, Field(max_length=1024)] | None = None
    """Value of a string input; ISO 8601 for a date or time, base64 for bytes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.number) != has(self.text)",
            "a default is either a number or a text",
            "set exactly one of number and text",
        ),
    )


class FeatureLookup(ApiModel):
    """Inputs that are fetched from PostgreSQL, Redis or Feast by entity key."""

    database: SecretReference
    """Secret with the connection string in its key uri: postgresql://, redis:// or feast://."""

    table: (
        Annotated[
            str,
            Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$", max_length=127),
        ]
        | None
    ) = None
    """Name of a table with one row per entity and a column for each input; in Redis, the part of
    the keys before the colon; in Feast, a feature service."""

    query: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """SELECT statement with the parameter %(keys)s, which is an array of entity keys."""

    inputs: Annotated[tuple[FieldName, ...], Field(max_length=256)] = ()
    """Inputs to fetch. Default: every input that the request omits."""

    timeout: Duration = "50ms"
    """Maximum duration of the lookup."""

    cache_ttl: Duration | None = None
    """How long a replica uses a row that it found for further requests with the same entity key.
    Default: every request is looked up."""

    as_of: FieldName | None = None
    """Name of the column with the date or time since when a row's values hold. Answers repeat it,
    in the parameter features_as_of. With Feast: event_timestamp."""

    on_timeout: Literal["UseDefaults", "Fail"] = "Fail"
    """What to do when the lookup exceeds its timeout or the database is unavailable."""

    defaults: Annotated[tuple[FeatureDefault, ...], Field(max_length=256), keyed_by("name")] = ()
    """Values of inputs for which the database has no row or no value. Without a default, a nullable
    input is NaN, and any other input causes the request to be refused."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.table) != has(self.query)",
            "features come either from a table or from a query",
            "set exactly one of table and query",
        ),
        longer_than_zero("timeout"),
        Rule(
            "!has(self.cacheTtl) || duration(self.cacheTtl) > duration('0s')",
            "cacheTtl is zero",
            "set a duration such as 1s, or remove cacheTtl: every request is looked up then",
            ".cacheTtl",
        ),
        no_two_share("defaults", "name", "two defaults have the same input", "keep one of them"),
    )
