"""Chooses the contract's inputs: one field per column or tensor, completed from the sample."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from fourways_api import Contract, InputField
from fourways_api.contract import MAX_COLUMNS
from fourways_api.display import displayed
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring.inputs import bind_inputs
from fourways_runtime.scoring.model.base import Tensor

from .errors import NoManifest
from .model_source import ModelSource
from .names import comparable, field_names, looks_like_key, looks_like_target
from .sample import Kind, Sample
from .tokenizer_file import NAME as TEXT
from .tokenizer_file import TokenizerBeside

MAX_INPUTS = 256
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


@dataclass(slots=True)
class DraftInputs:
    """All inputs, the entity key, and what has to be decided about them."""

    fields: list[DraftField]
    key_name: str
    key_type: str
    key_column: str | None
    """The sample's column with the key; None if it has none."""

    decisions: list[str] = field(default_factory=list)

    block: str = ""
    """Name of the one input for all fields, where they are too many for one each."""

    tokenizer: TokenizerBeside | None = None
    """The tokenizer of the fields with tokens."""

    def contract(self, outputs: Sequence[Mapping[str, Any]]) -> Contract:
        """Return a contract with these inputs and the given outputs."""
        said: dict[str, Any] = {
            "entityKey": {"name": self.key_name, "type": self.key_type},
            "inputs": [spec for spec, _ in self.specs()],
            "outputs": list(outputs),
        }
        if self.tokenizer is not None:
            said["tokenizer"] = self.tokenizer.of_contract(self.tokenizer.path.resolve().as_uri())
        return Contract.model_validate(said)

    def contract_fields(self) -> tuple[InputField, ...]:
        """Return the fields as records have them."""
        return tuple(InputField.model_validate(each.spec()) for each in self.fields)

    def specs(self) -> list[tuple[dict[str, Any], str]]:
        """Return the inputs as in the manifest, each with its comment."""
        if not self.block:
            return [(each.spec(), each.comment) for each in self.fields]
        first = self.fields[0]
        said: dict[str, Any] = {"name": self.block, "type": first.type}
        said["columns"] = _numbered([each.name for each in self.fields])
        if first.tensor is not None:
            said["tensor"] = first.tensor
        if any(each.nullable for each in self.fields):
            said["nullable"] = True
        comment = f"{len(self.fields):,} columns, in the model's order."
        return [(said, comment)]


def draft_inputs(source: ModelSource, sample: Sample | None) -> DraftInputs:
    """Choose the inputs of a model. Raises NoManifest if the sample does not fit the model."""
    tensors = source.description.model.inputs
    decisions: list[str] = []
    if len(tensors) == 1 and len(tensors[0].shape) == 2:
        fields = _of_matrix(source, tensors[0], sample, decisions)
    else:
        fields = [_of_tensor(source, tensor, sample) for tensor in tensors]
    if len(fields) > MAX_INPUTS and len(tensors) > 1:
        raise NoManifest(
            f"the model has {len(fields)} inputs, and a contract at most {MAX_INPUTS}; export it"
            " with one tensor for all numbers"
        )
    chosen = _key(sample, {each.column for each in fields})
    texts = [_text_of(each) for each in fields]
    for each, name in zip(fields, field_names(texts), strict=True):
        each.name = name
    draft = DraftInputs(fields, *_named_key(chosen, sample, texts, fields), chosen, decisions)
    for each in fields:
        _complete(source, each, sample)
    draft.tokenizer = source.tokenizer
    if source.tokenizer is not None:
        _tokenise(fields, source.tokenizer)
    if len(fields) > MAX_INPUTS:
        _make_block(draft)
    _bind(draft, tensors)
    return draft


def _tokenise(fields: Sequence[DraftField], tokenizer: TokenizerBeside) -> None:
    text = next(each for each in fields if each.model_name == TEXT)
    text.tokens, text.categories, text.shape = tokenizer.tokens, (), ()
    text.comment = (
        f"Becomes at most {tokenizer.tokens['maxLength']} tokens, by {tokenizer.path.name} beside"
        " the model. TO DECIDE: a smaller maxLength is faster, and longer texts are cut."
    )


def _make_block(draft: DraftInputs) -> None:
    """Declare all fields as one block of columns of one type. Raises NoManifest."""
    kinds = {each.type for each in draft.fields}
    if not kinds <= {"int64", "float64", "float32"} and len(kinds) > 1:
        raise NoManifest(
            f"the model has {len(draft.fields):,} columns of the types {', '.join(sorted(kinds))};"
            f" more than {MAX_INPUTS} need one type: give the sample as numbers"
        )
    for each in draft.fields:
        each.type = "float64" if len(kinds) > 1 else each.type
        each.range, each.categories = None, ()
    names = {each.name for each in draft.fields} | {draft.key_name}
    draft.block = next(name for name in ("columns", "columns_", "columns__") if name not in names)


def _numbered(names: list[str]) -> list[str]:
    """Write runs of numbered names as one: x0, x1, x2 as x{0..2}."""
    found: list[str] = []
    run: tuple[str, int, int] | None = None
    for name in [*names, ""]:
        parts = re.fullmatch(r"(.*?[A-Za-z_])(0|[1-9][0-9]{0,4})", name)
        if run and parts and parts[1] == run[0] and int(parts[2]) == run[2] + 1:
            run = (run[0], run[1], run[2] + 1)
            continue
        if run:
            stem, first, last = run
            found.append(f"{stem}{{{first}..{last}}}" if last > first else f"{stem}{first}")
        run = (parts[1], int(parts[2]), int(parts[2])) if parts else None
        if name and not parts:
            found.append(name)
    return found


# ---------------------------------------------------------------- which fields there are


def _of_matrix(
    source: ModelSource, tensor: Tensor, sample: Sample | None, decisions: list[str]
) -> list[DraftField]:
    width = tensor.shape[1]
    names = tensor.columns or (source.columns if len(source.columns) == width else ())
    kind = _declared(tensor)
    if names and len(names) <= MAX_COLUMNS:
        columns = [_match(name, sample) for name in names]
        return [
            DraftField("", kind, (), column, name)
            for name, column in zip(names, columns, strict=True)
        ]
    positional = _by_position(sample, width, kind, decisions) if sample else []
    if positional:
        return [DraftField("", kind, (), column, "") for column in positional]
    shape = () if width == 1 else (width,)
    block = DraftField("", kind, shape, _only_list(sample), tensor.name)
    if sample is not None and block.column is None:
        raise NoManifest(
            f"the model reads {width or 'some'} columns without names, and the sample has no"
            f" {width or ''} columns of that type besides the key; give a sample with exactly the"
            " model's columns, in its order"
        )
    block.comment = "All columns of the model, in its order: it does not name them."
    return [block]


def _by_position(sample: Sample, width: int | None, kind: str, decisions: list[str]) -> list[str]:
    """Return the columns that a model without names probably reads, in the sample's order."""
    wanted = ("string",) if kind == "string" else ("bool", "int64", "float64")
    key = _key(sample, set(), positional=True)
    found = [name for name in sample.columns if name != key and sample.kind(name) in wanted]
    if width is None or len(found) > width:
        found = [name for name in found if not looks_like_target(name)] or found
    if (width is not None and len(found) < width) or len(found) > MAX_COLUMNS:
        return []
    left_out = found[width:] if width is not None else []
    note = (
        "The model does not name its columns: these are columns of the sample, in its order. Check"
        " the order against the training."
    )
    if left_out:
        note += f" Left out: {displayed(', '.join(left_out), 200)}."
    decisions.append(note)
    return found[:width]


def _only_list(sample: Sample | None) -> str | None:
    lists = [name for name in sample.columns if sample.kind(name) == "list"] if sample else []
    return lists[0] if len(lists) == 1 else None


def _of_tensor(source: ModelSource, tensor: Tensor, sample: Sample | None) -> DraftField:
    shape = tensor.shape[1:]
    shape = () if all(size == 1 for size in shape) else shape
    only = len(source.description.model.inputs) == 1
    column = _only_list(sample) if only and len(shape) > 0 else None
    if column is None:
        column = _match(tensor.name, sample)
    return DraftField("", _declared(tensor), shape, column, tensor.name)


def _declared(tensor: Tensor) -> str:
    """Return the contract's type of a tensor; empty if the model does not declare it."""
    return {"float16": "float32", "str": "string", "object": "string"}.get(tensor.type, tensor.type)


def _match(name: str, sample: Sample | None) -> str | None:
    if sample is None:
        return None
    for known in (str, comparable):
        found = [column for column in sample.columns if known(column) == known(name)]
        if len(found) == 1:
            return found[0]
    said = (
        f"the model reads {displayed(name, 100)}, and the sample has no such column; it has"
        f" {displayed(', '.join(sample.columns), 500)}"
    )
    if separator := sample.other_separator():
        said += f". Its header has {separator} between the columns: write it with commas"
    raise NoManifest(said)


# ---------------------------------------------------------------- the entity key


def _key(sample: Sample | None, used: set[str | None], *, positional: bool = False) -> str | None:
    """Return the column that identifies a row; a number without such a name is an input."""
    if sample is None:
        return None
    free = [
        name
        for name in sample.columns
        if name not in used
        and sample.kind(name) in ("int64", "string")
        and not looks_like_target(name)
        and sample.is_unique(name)
    ]
    named = [name for name in free if looks_like_key(name)]
    if named:
        return named[0]
    if positional:
        free = [name for name in free if sample.kind(name) == "string"]
    return free[0] if free else None


def _named_key(
    column: str | None, sample: Sample | None, texts: list[str], fields: list[DraftField]
) -> tuple[str, str]:
    """Return name and type of the key."""
    names = [each.name for each in fields]
    if column is None or sample is None:
        name = field_names(["id" if sample is None else "row"], names)[0]
        return name, "string" if sample is None else "int64"
    # A CSV key such as 007 is text: only a column that is written as numbers everywhere is int64.
    kind = "int64" if sample.kind(column) == "int64" else "string"
    return field_names([column], names)[0], kind


# ---------------------------------------------------------------- what the sample says of each


def _text_of(each: DraftField) -> str:
    same = each.column is not None and comparable(each.column) == comparable(each.model_name)
    return (each.column if same or not each.model_name else each.model_name) or "x"


def _complete(source: ModelSource, each: DraftField, sample: Sample | None) -> None:
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
            f"column {shown} of the sample is neither number, text nor list; convert it"
        )
    if each.type and each.type != "string" and kind == "string":
        raise NoManifest(
            f"column {shown} of the sample holds text, and the model reads {each.type}; give the"
            " sample as the model reads it, or export the model with its encoders"
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


# ---------------------------------------------------------------- how they reach the model


def _bind(draft: DraftInputs, tensors: tuple[Tensor, ...]) -> None:
    """Name the model's tensors where the names of the fields do not lead to them."""
    try:
        if draft.contract_fields() and bind_inputs(draft.contract_fields(), tensors):
            return
    except ContractMismatch:
        pass
    for each in draft.fields:
        each.tensor = tensors[0].name if len(tensors) == 1 else each.model_name
    try:
        bind_inputs(draft.contract_fields(), tensors)
    except ContractMismatch as error:
        raise NoManifest(str(error)) from None
