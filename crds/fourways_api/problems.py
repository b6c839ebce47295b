"""Turn a document into a ModelDeployment, or into a list of problems a person can act on.

``parse`` validates as the API server does, with the same schema and rules. ``check`` adds what a
schema cannot express. ``check_update`` validates the change from a stored deployment to a new one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .base import RULES_ERROR, ApiModel
from .cron import schedule_fault, zone_is_known
from .deployment import ModelDeployment
from .runtime_config import MAX_CONFIG_BYTES, environment_text
from .spec import Spec
from .strategy import Mode
from .wording import path_of, words_for

MAX_CONTRACT_BYTES = MAX_CONFIG_BYTES // 2
MAX_BLOCK_BYTES = MAX_CONFIG_BYTES // 2 - 8192
"""Maximum size of one mode's settings. The rest is for the model and what the plan adds."""

MAX_VALUES = 200_000
"""Maximum number of values in one document. YAML aliases can expand a short text endlessly."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where, what, and what to do."""

    field: str
    fault: str
    fix: str

    def __str__(self) -> str:
        """Return the problem as one line."""
        return f"{self.field}: {self.fault}; {self.fix}"

    def to_json(self) -> dict[str, str]:
        """Return the problem as plain data."""
        return asdict(self)


class InvalidSpec(ValueError):
    """A document that is not a valid ModelDeployment; ``problems`` says why."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


def parse(document: dict[str, Any]) -> ModelDeployment:
    """Turn a decoded document into a ModelDeployment, validated as the API server does.

    An invalid status is ignored instead of refused: a spec is not wrong because an operator of
    another version wrote its status.

    Raises:
        InvalidSpec: with every problem found.

    """
    plain, with_nulls = _Plain(nulls=False).of(document), _Plain(nulls=True).of(document)
    deployment, errors = _validate(plain)
    if errors and all(e["loc"][:1] == ("status",) for e in errors):
        deployment, errors = _validate({k: v for k, v in plain.items() if k != "status"})
    if plain != with_nulls:
        # The API server drops nulls before it validates, but reports unknown fields before that.
        errors += [e for e in _validate(with_nulls)[1] if _is_unknown_null(e)]
    if errors or deployment is None:
        raise InvalidSpec(tuple(p for e in _telling(errors) for p in _problems(e)))
    return deployment


def check(deployment: ModelDeployment) -> None:
    """Check what no schema can express: the API server accepts it, but the operator does not.

    Raises:
        InvalidSpec: with every problem found.

    """
    problems = tuple(p for ask in _CHECKS if (p := ask(deployment.spec)))
    if problems:
        raise InvalidSpec(problems)


def check_update(old: ModelDeployment, new: ModelDeployment) -> None:
    """Check that ``new`` may replace ``old``: that no immutable field changed.

    Raises:
        InvalidSpec: with every problem found.

    """
    problems = tuple(_broken_transitions(old, new, ""))
    if problems:
        raise InvalidSpec(problems)


# ---------------------------------------------------------------- what no schema can express


def _contract_size(spec: Spec) -> Problem | None:
    fix = "shorten names, categories or descriptions"
    return _too_large("spec.contract", spec.contract, MAX_CONTRACT_BYTES, fix)


def _block_sizes(spec: Spec) -> Problem | None:
    for mode in get_args(Mode):
        block: ApiModel | None = getattr(spec, mode)
        fix = "shorten queries and lists of values"
        if block and (problem := _too_large(f"spec.{mode}", block, MAX_BLOCK_BYTES, fix)):
            return problem
    return None


def _too_large(field: str, part: ApiModel, limit: int, fix: str) -> Problem | None:
    """Refuse what does not fit into the environment variable that carries it to a worker."""
    size = len(environment_text(part))
    if size <= limit:
        return None
    return Problem(field, f"takes {size} bytes as JSON; the maximum is {limit}", fix)


def _schedule_comes(spec: Spec) -> Problem | None:
    fault = schedule_fault(spec.batch.schedule) if spec.batch else None
    if not fault:
        return None
    return Problem("spec.batch.schedule", fault, "write a schedule such as '0 3 * * *'")


def _zone_exists(spec: Spec) -> Problem | None:
    if not spec.batch or zone_is_known(spec.batch.time_zone):
        return None
    fault = f"'{spec.batch.time_zone}' is not a time zone"
    return Problem("spec.batch.timeZone", fault, "use an IANA name such as Europe/Berlin")


_CHECKS: tuple[Callable[[Spec], Problem | None], ...] = (
    _contract_size,
    _block_sizes,
    _schedule_comes,
    _zone_exists,
)


# ---------------------------------------------------------------- pydantic's errors


def _validate(document: Any) -> tuple[ModelDeployment | None, list[ErrorDetails]]:
    try:
        # Through JSON, for the strictness of JSON: 1 is not "1", and a list is not a tuple.
        return (
            ModelDeployment.model_validate_json(
                json.dumps(document), strict=True, by_alias=True, by_name=False
            ),
            [],
        )
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _is_unknown_null(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden" and error["input"] is None


def _telling(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Omit errors that only follow from others: a list is too short without its refused items."""
    return [
        e
        for e in errors
        if e["type"] != "too_short"
        or not any(
            len(o["loc"]) > (n := len(e["loc"])) and o["loc"][:n] == e["loc"] for o in errors
        )
    ]


def _problems(error: ErrorDetails) -> list[Problem]:
    field = path_of(error["loc"])
    if error["type"] == RULES_ERROR:
        broken = error["ctx"]["broken"]
        return [
            Problem((field + r.field).lstrip(".") or "document", r.fault, r.fix) for r in broken
        ]
    fault, fix = words_for(error)
    return [Problem(field or "document", fault, fix)]


def _broken_transitions(old: ApiModel, new: ApiModel, path: str) -> list[Problem]:
    broken = [
        Problem((path + rule.field).lstrip("."), rule.fault, rule.fix)
        for rule in new.rules
        if rule.transition and not rule.holds(new.to_json(), old.to_json())
    ]
    for name, info in type(new).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, ApiModel) and isinstance(after, ApiModel):
            broken += _broken_transitions(before, after, f"{path}.{info.alias}")
    return broken


# ---------------------------------------------------------------- decoded YAML to JSON


@dataclass(slots=True)
class _Plain:
    """Converts decoded YAML to JSON data, as kubectl does before it sends a document."""

    nulls: bool
    left: int = MAX_VALUES

    def of(self, value: Any, path: tuple[str | int, ...] = ()) -> Any:
        self.left -= 1
        if self.left < 0 or len(path) > 64:
            raise InvalidSpec(
                (Problem("document", "too large or nested too deeply", "make it smaller"),)
            )
        match value:
            case dict():
                return {
                    _key(k): self.of(v, (*path, _key(k)))
                    for k, v in value.items()
                    if self.nulls or v is not None
                }
            case list() | tuple():
                return [self.of(v, (*path, i)) for i, v in enumerate(value)]
            case float() if not math.isfinite(value):
                fault = f"{value} cannot be written in JSON"
                raise InvalidSpec((Problem(path_of(path), fault, "write a finite number"),))
            case float() if value.is_integer() and abs(value) < 2**53:
                return int(value)
            case bytes():
                return value.decode(errors="replace")
            case str() | bool() | int() | float() | None:
                return value
            case _:
                return str(value)


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
