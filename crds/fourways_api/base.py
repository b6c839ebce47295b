"""What every type of the API is built on: one strict model class, and rules written once.

A rule is a CEL expression. The API server evaluates it because the CRD generator copies it
into ``x-kubernetes-validations``; Python evaluates the very same text here. So the command
line, the embedded host and the API server cannot come to different verdicts about a rule.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

if TYPE_CHECKING:
    from cel import Program
    from cel.cel import Context

RULES_KEYWORD = "x-kubernetes-validations"
RULES_ERROR = "rules"

_CONFIG_VARIABLE = "FOURWAYS_CONFIG"

SKIP_RULES = {"skip_rules": True}
"""Validation context of a document whose rules were kept when it was written: a worker's
configuration. Evaluating CEL again would cost every pod a second of imports."""

# Not FieldValueDuplicate: the API server prints no message with it.
RuleReason = Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition that spans fields of an object.

    ``cel`` sees the object as ``self`` (and the stored one as ``oldSelf`` when it is a
    transition). ``fault`` says what is wrong, ``fix`` what to do, ``field`` names the field to
    blame, relative to the object (empty for the object itself). Only what the API server's CEL
    and the ``cel`` library share may be used: no ``split``, ``sum`` or ``quantity``, and
    ``size()`` of ASCII text only (one counts characters, the other bytes).
    """

    cel: str
    fault: str
    fix: str
    field: str = ""
    reason: RuleReason = "FieldValueInvalid"

    @property
    def transition(self) -> bool:
        """True when the rule compares with the stored object, so it only holds on update."""
        return "oldSelf" in self.cel

    @property
    def message(self) -> str:
        """What the API server prints: fault and fix in one line."""
        return f"{self.fault}; {self.fix}"

    def to_schema(self) -> dict[str, str]:
        """Return the rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message, "reason": self.reason}
        return entry | ({"fieldPath": self.field} if self.field else {})

    def holds(self, value: Any, old: Any = None) -> bool:
        """Tell whether ``value`` (plain JSON data) keeps the rule; ``old`` is the stored one."""
        return self.holds_in(context_of(value, old))

    def holds_in(self, context: Context) -> bool:
        """Tell whether the object of a context keeps the rule."""
        return bool(_compiled(self.cel).execute(context))


class Ruled:
    """Rules of one value, for a field's type: ``Annotated[str, Ruled(...)]``.

    A rule's CEL sees the value itself as ``self``, and its ``field`` stays empty.
    """

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the rules once the value has its type and form."""
        return core_schema.with_info_after_validator_function(self._keep, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the rules to the field's schema."""
        return handler(schema) | {RULES_KEYWORD: [rule.to_schema() for rule in self.rules]}

    def _keep(self, value: Any, info: ValidationInfo) -> Any:
        if info.context is not SKIP_RULES:
            _refuse_broken(self.rules, value)
        return value


def _refuse_broken(rules: tuple[Rule, ...], value: Any) -> None:
    context = context_of(value)
    broken = [r for r in rules if not r.transition and not r.holds_in(context)]
    if broken:
        raise PydanticCustomError(RULES_ERROR, "breaks a rule", {"broken": broken})


def longer_than_zero(field: str) -> Rule:
    """Return the rule that a field's duration is a length of time."""
    return Rule(
        f"duration(self.{field}) > duration('0s')",
        f"{field} is zero",
        "set a duration such as 1s",
        f".{field}",
    )


def no_two_share(items: str, key: str, fault: str, fix: str) -> Rule:
    """Return the rule that the items of a list differ in a field; the API server merges by it."""
    found = f"self.{items}.all(i, self.{items}.exists_one(j, j.{key} == i.{key}))"
    return Rule(f"!has(self.{items}) || {found}", fault, fix, f".{items}")


def context_of(value: Any, old: Any = None) -> Context:
    """Convert an object to CEL's values, once for all of its rules."""
    from cel.cel import Context

    variables = {"self": value} if old is None else {"self": value, "oldSelf": old}
    return Context(variables=variables)


@lru_cache(maxsize=512)
def _compiled(expression: str) -> Program:
    import cel

    return cel.compile(expression)


def _add_rules(schema: dict[str, Any], model: type[ApiModel]) -> None:
    if model.rules:
        schema[RULES_KEYWORD] = [rule.to_schema() for rule in model.rules]


class ApiModel(BaseModel):
    """An object of the API: camelCase on the wire, immutable, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        # A process builds the validators of the types it uses, not of all.
        defer_build=True,
        # Docstrings under fields become the text of `kubectl explain`. A worker explains nothing,
        # and reading the source of every type again is a quarter of what the types cost its start.
        use_attribute_docstrings=_CONFIG_VARIABLE not in os.environ,
        json_schema_extra=_add_rules,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self, info: ValidationInfo) -> Self:
        if self.rules and info.context is not SKIP_RULES:
            _refuse_broken(self.rules, self.to_json())
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the object as the API server stores it: defaults filled in, absent left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
