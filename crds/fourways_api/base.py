"""The base of every API type: one strict model class, and rules that are written only once.

A rule is a CEL expression. The API server evaluates it because the CRD generator copies it
into ``x-kubernetes-validations``; Python evaluates the same text here. So the command line, the
embedded host and the API server cannot disagree about a rule.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
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
"""Validation context for a document whose rules were checked when it was written: a worker's
configuration. Evaluating CEL again would cost every pod a second of imports."""

# Not FieldValueDuplicate: the API server prints no message with it.
RuleReason = Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition that spans fields of an object.

    In ``cel`` the object is ``self``, and in a transition the stored one is ``oldSelf``. ``fault``
    says what is wrong, ``fix`` what to do, and ``field`` names the field at fault, relative to the
    object (empty for the object itself). Use only what the API server's CEL and the ``cel`` library
    have in common: no ``split``, ``sum`` or ``quantity``, and ``size()`` only of ASCII text (one
    counts characters, the other bytes).
    """

    cel: str
    fault: str
    fix: str
    field: str = ""
    reason: RuleReason = "FieldValueInvalid"

    @property
    def transition(self) -> bool:
        """True when the rule compares with the stored object, so it applies only to updates."""
        return "oldSelf" in self.cel

    @property
    def message(self) -> str:
        """The message that the API server prints: fault and fix on one line."""
        return f"{self.fault}; {self.fix}"

    def to_schema(self) -> dict[str, str]:
        """Return the rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message, "reason": self.reason}
        return entry | ({"fieldPath": self.field} if self.field else {})

    def holds(self, value: Any, old: Any = None) -> bool:
        """Tell whether ``value`` (plain JSON data) satisfies the rule; ``old`` is stored."""
        return self.holds_in(context_of(value, old))

    def holds_in(self, context: Context) -> bool:
        """Tell whether the object of a context satisfies the rule."""
        return bool(_compiled(self.cel).execute(context))


class Ruled:
    """Rules for one value, as part of a field's type: ``Annotated[str, Ruled(...)]``.

    In a rule's CEL the value is ``self``; its ``field`` is empty.
    """

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the rules after the type and format of the value."""
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
    # The same few texts come again with every deployment and every look at one.
    broken = _broken_by_text(rules, value) if isinstance(value, str) else _broken(rules, value)
    if broken:
        raise PydanticCustomError(RULES_ERROR, "breaks a rule", {"broken": list(broken)})


def _broken(rules: tuple[Rule, ...], value: Any) -> tuple[Rule, ...]:
    context = context_of(value)
    return tuple(r for r in rules if not r.transition and not r.holds_in(context))


@lru_cache(maxsize=1024)
def _broken_by_text(rules: tuple[Rule, ...], text: str) -> tuple[Rule, ...]:
    return _broken(rules, text)


_kept: set[tuple[type[ApiModel], str]] = set()
"""Objects that keep the rules of their type, as text; of the last ``_KEPT`` or fewer."""

_KEPT, _KEPT_CHARACTERS = 1024, 2048


def _keep_or_refuse(model: type[ApiModel], value: dict[str, Any]) -> None:
    # Most objects of a deployment are those of the last look at it, and CEL takes the longest.
    cache_key = model, repr(value)
    if cache_key in _kept:
        return
    _refuse_broken(model.rules, value)
    if len(cache_key[1]) <= _KEPT_CHARACTERS:
        if len(_kept) >= _KEPT:
            _kept.clear()
        _kept.add(cache_key)


def longer_than_zero(field: str) -> Rule:
    """Return the rule that a field's duration is greater than zero."""
    return Rule(
        f"duration(self.{field}) > duration('0s')",
        f"{field} is zero",
        "set a duration such as 1s",
        f".{field}",
    )


def no_two_share(items: str, key: str, fault: str, fix: str) -> Rule:
    """Return the rule that a field, by which the API server merges a list, is unique in it."""
    found = f"self.{items}.all(i, self.{items}.exists_one(j, j.{key} == i.{key}))"
    return Rule(f"!has(self.{items}) || {found}", fault, fix, f".{items}")


def context_of(value: Any, old: Any = None) -> Context:
    """Convert an object to CEL values, once for all of its rules."""
    variables = {"self": value} if old is None else {"self": value, "oldSelf": old}
    context: Context = _cel().Context(variables=variables)
    return context


@lru_cache(maxsize=512)
def _compiled(expression: str) -> Program:
    program: Program = _cel().compile(expression)
    return program


@lru_cache(maxsize=1)
def _cel() -> ModuleType:
    """Return the library without its command line.

    The library imports its command line, whose terminal libraries are most of its import time, so
    an empty module takes that one's place meanwhile. Who imports ``cel.cli`` later gets the real
    one.
    """
    if "cel" in sys.modules:
        return import_module("cel")
    command_line = "cel.cli"
    sys.modules[command_line] = ModuleType(command_line)
    try:
        library = import_module("cel")
    finally:
        sys.modules.pop(command_line, None)
    vars(library).pop("cli", None)
    return library


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
        # A process builds only the validators of the types that it uses.
        defer_build=True,
        # Docstrings under fields become the text of `kubectl explain`. A worker does not need them,
        # and reading the source of every type again takes a quarter of the types' import time.
        use_attribute_docstrings=_CONFIG_VARIABLE not in os.environ,
        json_schema_extra=_add_rules,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self, info: ValidationInfo) -> Self:
        if self.rules and info.context is not SKIP_RULES:
            _keep_or_refuse(type(self), self.to_json())
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the object as the API server stores it: with defaults, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
