"""One input of a manifest, completed from the sample or from the model's hints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from fourways_api.display import displayed

from .errors import NoManifest
from .model_source import ModelSource
from .sample import Kind, Sample

_CATEGORIES = 50
_REPEATED = 5
"""A text column has categories if each occurs this many times on average."""

_ROWS_OF_A_RANGE = 50
"""A range is taken from at least so many rows; fewer show examples, not what is usual."""

_TYPES: dict[Kind, str] = {"bool": "bool", "int64": "int64", "float64": "float64"}


@dataclass(slots=True)
class DraftField:
    """One input as it will be written."""

    name: str
    type: str
    shape: tuple[int | None, ...] = ()
    """None where the model leaves the size of a dimension free."""

    column: str | None = None
    """The column of the sample that it is read from."""

    model_name: str = ""
    """The model's name of the column or tensor."""

    tensor: str | None = None
    nullable: bool = False
    range: tuple[float | None, float | None] | None = None
    categories: tuple[str, ...] = ()
    tokens: dict[str, Any] | None = None
    comment: str = ""

    def spec(self) -> dict[str, Any]:
        """Return the field as in the manifest, without its comment."""
        said: dict[str, Any] = {"name": self.name, "type": self.type}
        if self.shape:
            said["shape"] = [size or -1 for size in self.shape]
        if self.tensor is not None:
            said["tensor"] = self.tensor
        if self.tokens is not None:
            said["tokens"] = self.tokens
        if self.nullable:
            said["nullable"] = True
        if self.range is not None:
            bounds = zip(("min", "max"), self.range, strict=True)
            said["range"] = {name: bound for name, bound in bounds if bound is not None}
        if self.categories:
            said["categories"] = list(self.categories)
        return said


def complete(source: ModelSource, each: DraftField, sample: Sample | None) -> None:
    """Set what the model does not say of a field: from the sample, else from the model's hints.

    Raises:
        NoManifest: the sample's column cannot be the input.

    """
    hints = source.description.hints
    if each.column is not None and sample is not None:
        _from_sample(each, sample, hints.categories.get(each.model_name, ()))
        return
    each.categories = hints.categories.get(each.model_name, ())[:_CATEGORIES]
    if not each.type:
        given = "string" if each.categories else "float64"
        each.type = source.kinds.get(each.model_name, given)
    if each.type != "string":
        each.categories = ()
    seen = hints.ranges.get(each.model_name)
    if seen and not each.shape:
        each.range = _widened(*seen)
        each.comment = f"Training saw {_short(seen[0])} to {_short(seen[1])}."


def _from_sample(each: DraftField, sample: Sample, known: tuple[str, ...]) -> None:
    column = each.column or ""
    kind = sample.kind(column)
    _check(each, column, kind)
    if kind == "list":
        each.shape = _shape_of(sample.table.column(column), each.shape)
        each.type = each.type or "float64"
        return
    missing = sample.has_missing(column)
    if kind == "bool" and each.type != "string":
        each.type = "bool"
    elif not each.type:
        each.type = _TYPES.get(kind, "string")
        each.type = "float64" if missing and each.type == "int64" else each.type
    each.nullable = missing and each.type in ("float32", "float64", "string")
    if missing and not each.nullable:
        each.comment = "Rows with a missing value are rejected: this type cannot represent one."
    if each.type == "string":
        each.categories = _categories(sample.texts(column), known)
    elif each.type != "bool":
        _set_range(each, sample.numbers(column))


def _set_range(each: DraftField, values: Any) -> None:
    if len(values) < _ROWS_OF_A_RANGE:
        return
    seen = pc.min_max(values)
    low, high = float(seen["min"].as_py()), float(seen["max"].as_py())
    each.range = _widened(low, high, whole=each.type.startswith(("int", "uint")))
    each.comment = f"The sample has {_short(low)} to {_short(high)}."


def _check(each: DraftField, column: str, kind: Kind) -> None:
    shown = displayed(column, 100)
    if kind == "other":
        raise NoManifest(
            f"column {shown} of the sample is neither a number, a text nor a list. Write a date or"
            " a time as the number that the model was trained with; the manifest can then declare"
            " it as date, timestamp_s, _ms, _us or _ns, which accept ISO 8601"
        )
    if each.type and each.type != "string" and kind == "string":
        raise NoManifest(
            f"column {shown} of the sample holds text, and the model reads {each.type}; give the"
            " sample as the model reads it (a category of XGBoost or LightGBM as its position in"
            f" training, table[{shown!r}].cat.codes), or export the model with its encoders"
        )


def _categories(texts: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the texts that may occur: the model's own, or the sample's if they repeat."""
    seen = sorted(map(str, pc.unique(texts).to_pylist()[: _CATEGORIES + 1]))
    if known and set(seen) <= set(known):
        return known[:_CATEGORIES] if len(known) <= _CATEGORIES else ()
    few = 0 < len(seen) <= _CATEGORIES and len(texts) >= _REPEATED * len(seen)
    return tuple(seen) if few and all(len(each) <= 128 for each in seen) else ()


def _shape_of(column: Any, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return the shape of the first list, where the model leaves sizes free.

    None stands for the length of lists of different lengths.
    """
    lengths = pc.list_value_length(column)
    if shape in ((None,), ()) and pc.count_distinct(lengths, mode="only_valid").as_py() > 1:
        return (None,)
    first: Any = next((cell for cell in column.to_pylist() if cell), [])
    sizes: list[int | None] = []
    while isinstance(first, list) and first:
        sizes.append(len(first))
        first = first[0]
    fits = len(sizes) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(sizes, shape, strict=True)
    )
    if fits:
        return tuple(sizes)
    # A flat list of all elements fits a shape that is known.
    return shape if None not in shape else tuple(sizes)


def _widened(
    low: float, high: float, whole: bool = False
) -> tuple[float | None, float | None] | None:
    """Widen a range by its own width on both sides, rounded; what is never negative stays so.

    A bound that no float64 can express is left out.
    """
    span = (high - low) or abs(high) or 1.0
    least = 0.0 if low >= 0 else _rounded(low - span, math.floor)
    most = _rounded(high + span, math.ceil)
    kept = [bound if math.isfinite(bound) else None for bound in (least, most)]
    if kept == [None, None]:
        return None
    if whole:
        kept = [bound if bound is None else int(bound) for bound in kept]
    return kept[0], kept[1]


def _rounded(value: float, towards: Any) -> float:
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1) if 0 < abs(value) < math.inf else 0.0
    if step == 0:  # zero, infinite, or too small for a step below it
        return value
    found = towards(value / step) * step
    return float(f"{found:.3g}")


def _short(value: float) -> str:
    return f"{value:g}"
