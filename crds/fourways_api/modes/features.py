"""Features looked up by entity key."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..base import ApiModel, Rule, longer_than_zero, no_two_share
from ..model import SecretReference
from ..schema_hints import keyed_by
from ..values import Duration, FieldName


class FeatureDefault(ApiModel):
    """What an input is taken to be where the database does not say in time."""

    name: FieldName
    """Name of the input."""

    number: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Its value, for numbers; 0 and 1 for bool."""

    text: Annotated[str, Field(max_length=1024)] | None = None
    """Its value, for strings."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.number) != has(self.text)",
            "a default is a number or a text",
            "set exactly one of number and text",
        ),
    )


class FeatureLookup(ApiModel):
    """Inputs fetched from a PostgreSQL database by entity key at request time."""

    database: SecretReference
    """Secret with the connection string under the key uri."""

    table: (
        Annotated[
            str,
            Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$", max_length=127),
        ]
        | None
    ) = None
    """Table with one row an entity; its columns have the inputs' names."""

    query: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """Query with the parameter %(keys)s, an array of entity keys."""

    inputs: Annotated[tuple[FieldName, ...], Field(max_length=256)] = ()
    """Inputs to fetch; empty: every input the request leaves out."""

    timeout: Duration = "50ms"
    """Time budget for the lookup."""

    on_timeout: Literal["UseDefaults", "Fail"] = "Fail"
    """What to do past the budget, or while the database is away."""

    defaults: Annotated[tuple[FeatureDefault, ...], Field(max_length=256), keyed_by("name")] = ()
    """Values of inputs the database has no row or no value for. An input without one is missing
    then: NaN where the contract says nullable, else the request is refused."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.table) != has(self.query)",
            "features come from a table or from a query",
            "set exactly one of table and query",
        ),
        longer_than_zero("timeout"),
        no_two_share("defaults", "name", "two defaults are of one input", "keep one of them"),
    )
