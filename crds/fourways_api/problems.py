"""From a document to a ModelDeployment, or to a list of problems a person can act on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson
import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .deployment import KIND, ModelDeployment
from .runtime_config import MAX_CONFIG_BYTES
from .strategy import Contradiction


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
    """Turn a decoded document into a ModelDeployment, judged as the API server judges it.

    Raises:
        InvalidSpec: with every problem found.

    """
    try:
        # Through JSON, so that the strictness is JSON's: 1 is not "1", a list is not a tuple.
        deployment = ModelDeployment.model_validate_json(
            orjson.dumps(document, default=str), strict=True
        )
    except ValidationError as error:
        raise InvalidSpec(tuple(_problem(e) for e in error.errors(include_url=False))) from None
    return deployment


def check(deployment: ModelDeployment) -> None:
    """Check what no schema can say: contradicting requirements, a contract too large to carry.

    Raises:
        InvalidSpec: with the first problem found.

    """
    try:
        deployment.spec.choice()
    except Contradiction as error:
        fault, _, fix = str(error).partition(": ")
        raise InvalidSpec((Problem("spec.requirements", fault, fix),)) from None
    size = len(orjson.dumps(deployment.spec.contract.to_json()))
    if size > MAX_CONFIG_BYTES // 2:
        fault = f"the contract takes {size} bytes, {MAX_CONFIG_BYTES // 2} at the most"
        raise InvalidSpec(
            (Problem("spec.contract", fault, "shorten names, categories or descriptions"),)
        )


def load_documents(text: str) -> list[dict[str, Any]]:
    """Read the YAML documents of a file, as kubectl does.

    Raises:
        InvalidSpec: the text is not YAML, or a document is not a mapping.

    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}" if where else "file"
        raise InvalidSpec(
            (Problem(line, "not YAML", str(getattr(error, "problem", error))),)
        ) from None
    for document in documents:
        if not isinstance(document, dict):
            raise InvalidSpec(
                (
                    Problem(
                        "file",
                        f"a {type(document).__name__} where an object was expected",
                        f"write a {KIND}",
                    ),
                )
            )
    return documents


def _problem(error: ErrorDetails) -> Problem:
    context = error.get("ctx", {})
    field = _path(error["loc"])
    if error["type"] == "rule":
        return Problem((field + context["field"]).lstrip("."), context["fault"], context["fix"])
    fault, fix = _words(error, context)
    return Problem(field or "document", fault, fix)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.lstrip(".")


def _words(error: ErrorDetails, context: dict[str, Any]) -> tuple[str, str]:
    """Return fault and fix for one of pydantic's error types."""
    got = _shown(error["input"])
    match error["type"]:
        case "missing":
            return "required, but absent", "add it"
        case "extra_forbidden":
            return (
                "unknown field",
                "remove it, or check its spelling (kubectl explain modeldeployment.spec)",
            )
        case "literal_error":
            return f"{got} is not one of the values allowed", f"use {context['expected']}"
        case "string_pattern_mismatch":
            return f"{got} has the wrong form", f"write it to match {context['pattern']}"
        case "string_too_long" | "too_long" | "string_too_short" | "too_short":
            limit = context.get("max_length", context.get("min_length"))
            word = "long" if error["type"].endswith("long") else "short"
            return f"too {word}", f"the limit is {limit}"
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            sign = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}
            key = next(k for k in sign if k in context)
            return f"{got} is out of range", f"use {sign[key]} {context[key]:g}"
        case kind if (
            kind.endswith("_type") or kind.endswith("_parsing") or kind == "int_from_float"
        ):
            return f"{got} is not {_kind_of(kind)}", f"write {_kind_of(kind)}"
        case _:
            return error["msg"], "correct it (kubectl explain modeldeployment.spec)"


def _kind_of(kind: str) -> str:
    names = {
        "string": "a string (quote it)", "int": "a whole number", "float": "a number",
        "bool": "true or false", "model": "an object", "dict": "an object", "tuple": "a list",
    }  # fmt: skip
    return names.get(kind.split("_")[0], "of the right type")


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= 80 else text[:77] + "..."
