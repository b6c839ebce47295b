"""Chooses the contract's inputs: one field per column or tensor, completed from the sample."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fourways_api import Contract, InputField
from fourways_api.display import displayed
from fourways_api.fields import MAX_COLUMNS
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring.inputs import bind_inputs, described
from fourways_runtime.scoring.model.base import Tensor

from .errors import NoManifest
from .fields import DraftField, complete
from .model_source import ModelSource
from .names import comparable, field_names, looks_like_key, looks_like_target
from .sample import Sample
from .tokenizer_file import NAME as TEXT
from .tokenizer_file import TokenizerBeside

MAX_INPUTS = 256
MAX_DIMENSIONS = 4
"""Of one record's value, in a contract."""


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
    _check_tensors(tensors)
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
        complete(source, each, sample)
    draft.tokenizer = source.tokenizer
    if source.tokenizer is not None:
        _tokenise(fields, source.tokenizer)
    if len(fields) > MAX_INPUTS:
        _make_block(draft)
    _bind(draft, tensors)
    return draft


def _check_tensors(tensors: Sequence[Tensor]) -> None:
    """Refuse what no contract can declare. Raises NoManifest."""
    if not tensors:
        raise NoManifest(
            "the model takes no inputs, so it answers every record alike; export it with the inputs"
            " that its answers depend on"
        )
    for each in tensors:
        if len(each.shape) - 1 > MAX_DIMENSIONS:
            raise NoManifest(
                f"the model's input {described(each)} has {len(each.shape) - 1} dimensions per"
                f" record, and a contract's at most {MAX_DIMENSIONS}; export it with fewer, and"
                " reshape inside the model"
            )


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
