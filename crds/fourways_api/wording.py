"""Messages for pydantic's errors: the fault and the fix, for someone who edits YAML."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from . import addresses, values
from .base import ApiModel
from .deployment import ModelDeployment
from .display import without_credentials
from .model import PythonClass
from .modes import RejectLimit

Words = tuple[str, str]
"""Fault and fix."""


def path_of(location: tuple[int | str, ...]) -> str:
    """Return a location as people write it: ``spec.contract.inputs[0].name``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removesuffix(".[key]").lstrip(".")


def words_for(error: ErrorDetails) -> Words:
    """Return fault and fix for one of pydantic's errors."""
    context, got = error.get("ctx", {}), _shown(error["input"])
    match error["type"]:
        case "missing":
            return "required, but missing", _how_to_add(str(error["loc"][-1]))
        case "extra_forbidden":
            return "unknown field", _instead_of(error["loc"])
        case "literal_error":
            return f"{got} is not an allowed value", f"use {context['expected']}"
        case "string_pattern_mismatch":
            return f"{got} has the wrong format", f"write {_form(context['pattern'])}"
        case "string_too_long" | "too_long":
            return "too long", f"use at most {_counted(error, 'max_length')}"
        case "string_too_short" | "too_short":
            return "too short", f"use at least {_counted(error, 'min_length')}"
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            return f"{got} is out of range", f"use {_bound(context)}"
        case kind if kind.endswith(("_type", "_parsing")) or kind == "int_from_float":
            return f"{got} is not {_kind(kind)}", _how_to_write(kind, error)
        case _:
            return error["msg"], "correct it (kubectl explain modeldeployment.spec)"


def _counted(error: ErrorDetails, limit: str) -> str:
    count = error["ctx"][limit]
    unit = "character" if error["type"].startswith("string") else "item"
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _how_to_add(field: str) -> str:
    known = {"apiVersion": "fourways.dev/v1alpha1", "kind": "ModelDeployment"}
    return f"add {field}: {known[field]}" if field in known else "add it"


def _instead_of(location: tuple[int | str, ...]) -> str:
    name, siblings = str(location[-1]), _fields_at(location[:-1])
    close = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    where = ".".join(str(p) for p in location[:-1] if not isinstance(p, int))
    return f"remove it, or move it; see kubectl explain modeldeployment.{where or 'spec'}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[ApiModel] | None = ModelDeployment
    for part in location:
        if isinstance(part, str) and model is not None:
            model = _model_at(model, part)
    return [f.alias or name for name, f in model.model_fields.items()] if model else []


def _model_at(model: type[ApiModel], alias: str) -> type[ApiModel] | None:
    fields = {f.alias: f.annotation for f in model.model_fields.values()}
    return model_in(fields.get(alias))


def model_in(annotation: Any) -> type[ApiModel] | None:
    """Find the model inside ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := model_in(a))), None)


def _bound(context: dict[str, Any]) -> str:
    words = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}
    key = next(k for k in words if k in context)
    return f"{words[key]} {context[key]:.10g}"


def pattern_of(annotated: Any) -> str:
    """Return the pattern of a type such as ``values.Name``."""
    fields = (f for f in annotated.__metadata__ if isinstance(f, FieldInfo))
    metadata = [m for field in fields for m in field.metadata]
    return next(str(m.pattern) for m in metadata if getattr(m, "pattern", None))


_FORMS = {
    pattern_of(annotated): words
    for annotated, words in (
        (values.Name, "lower case letters, digits and -"),
        (
            values.ObjectName,
            "lower case letters, digits, - and ., as in names of Kubernetes objects",
        ),
        (values.FieldName, "letters, digits and _, not starting with a digit"),
        (values.Digest, "sha256: and 64 of 0-9a-f (sha256sum FILE prints them)"),
        (values.Duration, "a duration such as 250ms, 90s or 1h30m"),
        (values.CpuQuantity, "cores as in 2 or '0.5', or millicores as in 500m"),
        (values.MemoryQuantity, "an amount with its unit, as in 512Mi or 1.5Gi"),
        (
            addresses.FileUri,
            "file://, pvc://CLAIM/, http(s)://, s3://, gs://, az:// or oci:// and a path",
        ),
        (PythonClass, "MODULE:CLASS, as in churn.model:Churn"),
        (
            addresses.Image,
            "HOST/NAME:TAG, the name in lower case, as in registry.example.com/team/churn:1.0",
        ),
        (RejectLimit, "a count as in '100' or a share as in '1%'"),
        (addresses.KafkaServers, "HOST:PORT, separated by commas"),
        (addresses.NatsServers, "nats://HOST:PORT, separated by commas"),
        (values.LabelKey, "a label key as Kubernetes accepts it, as in team or example.com/team"),
        (values.ResourceName, "a DNS name, / and a name, as in nvidia.com/gpu"),
        (values.LabelValue, "at most 63 letters, digits, -, _ and ., as Kubernetes accepts it"),
    )
}


def _form(pattern: str) -> str:
    return _FORMS.get(pattern) or f"it to match {pattern}"


def _kind(kind: str) -> str:
    names = {
        "string": "a string",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "model": "an object",
        "dict": "an object",
        "tuple": "a list",
    }
    return names.get(kind.split("_")[0], "of the right type")


QUOTE = "quote it: "


def _how_to_write(kind: str, error: ErrorDetails) -> str:
    got, pattern = error["input"], _pattern_at(error["loc"])
    if not kind.startswith("string") or isinstance(got, dict | list):
        return f"write {_kind(kind)}"
    if pattern and not re.search(pattern, str(got)):
        return f"write {_form(pattern)}"
    if isinstance(got, bool):
        return f"{QUOTE}YAML reads y, n, yes, no, on and off as true and false"
    return f'{QUOTE}"{_shown(got)}"'


def _pattern_at(location: tuple[int | str, ...]) -> str | None:
    """Return the pattern of the field at a location; None if it has none."""
    *parents, name = (part for part in location if isinstance(part, str))
    model: type[ApiModel] | None = ModelDeployment
    for parent in parents:
        model = model and _model_at(model, parent)
    fields = {f.alias: f for f in model.model_fields.values()} if model else {}
    return _pattern_in(fields[name]) if name in fields else None


def _pattern_in(part: Any) -> str | None:
    """Find the pattern in a field's type, through ``X | None`` and ``Annotated``."""
    if found := getattr(part, "pattern", None):
        return str(found)
    inner = (
        *getattr(part, "metadata", ()),
        *getattr(part, "__metadata__", ()),
        *get_args(getattr(part, "annotation", part)),
    )
    return next((p for i in inner if not isinstance(i, type) and (p := _pattern_in(i))), None)


def _shown(value: object) -> str:
    """Quote a value, without credentials: the words go into status, events and logs."""
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    text = (
        repr(without_credentials(value))
        if isinstance(value, str)
        else json.dumps(value, default=str)
    )
    return text if len(text) <= 80 else text[:77] + "..."
