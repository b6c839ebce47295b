"""The training profile of a model: how the values of its inputs and outputs were distributed.

Owns the format of the file, version 1, which ``fourways init`` writes and workers read::

    {"version": 1, "rows": 1000,
     "inputs": [{"name": "age", "edges": [30, 50], "counts": [300, 500, 190, 10]},
                {"name": "colour", "labels": ["red", "white"], "counts": [700, 250, 40, 10]}],
     "outputs": [{"name": "risk", "edges": [0.5], "counts": [900, 100, 0]}]}

Bin ``i`` of a number holds the values above ``edges[i - 1]`` and up to ``edges[i]``; the first and
the last bin are open. A text has a bin for each label and one for all other texts. The last count
of every field is that of the missing values. The file holds counts and the bounds of bins, and of
texts the labels that are frequent; no record can be read from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .contract import Contract
from .values import FieldName

MAX_PROFILE_BYTES = 1 << 20
MAX_PROFILED = 256
"""Maximum number of inputs, and of outputs, in a profile."""

MAX_EDGES = 64
MAX_PROFILE_LABELS = 50

_Count = Annotated[int, Field(ge=0, lt=1 << 53)]
_Edge = Annotated[float, Field(allow_inf_nan=False)]


class InvalidProfile(ValueError):
    """A training profile that cannot be read, or that is not one of this contract."""


class ProfiledField(BaseModel):
    """The distribution of one input or output; either ``edges`` or ``labels`` is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FieldName
    edges: Annotated[tuple[_Edge, ...], Field(min_length=1, max_length=MAX_EDGES)] | None = None
    labels: (
        Annotated[
            tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=MAX_PROFILE_LABELS)
        ]
        | None
    ) = None
    counts: tuple[_Count, ...]

    @property
    def bins(self) -> int:
        """Number of counts: the bins, and the missing values."""
        return len(self.edges) + 2 if self.edges is not None else len(self.labels or ()) + 2

    @model_validator(mode="after")
    def _is_consistent(self) -> ProfiledField:
        if (self.edges is None) == (self.labels is None):
            raise ValueError("either edges or labels must be given")
        if len(self.counts) != self.bins:
            raise ValueError(f"{self.bins} counts were expected, found {len(self.counts)}")
        if self.edges and any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must grow")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError("a label is listed twice")
        return self


class TrainingProfile(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    rows: _Count
    inputs: Annotated[tuple[ProfiledField, ...], Field(max_length=MAX_PROFILED)]
    outputs: Annotated[tuple[ProfiledField, ...], Field(max_length=MAX_PROFILED)] = ()


def read_profile(content: bytes, contract: Contract) -> TrainingProfile:
    """Read a profile and check that it fits the contract.

    Raises:
        InvalidProfile: naming what is wrong with it.

    """
    if len(content) > MAX_PROFILE_BYTES:
        raise InvalidProfile(f"the profile is larger than {MAX_PROFILE_BYTES >> 20} MiB")
    try:
        profile = TrainingProfile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise InvalidProfile(f"{place}: {first['msg']}") from None
    for side, fields, known in (
        ("inputs", profile.inputs, {f.name: f.type for f in contract.flat_inputs if not f.shape}),
        ("outputs", profile.outputs, {f.name: f.type for f in contract.outputs if not f.shape}),
    ):
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            raise InvalidProfile(f"{side}: {max(names, key=names.count)} is listed twice")
        for field in fields:
            kind = known.get(field.name)
            if kind is None or kind == "bytes":
                raise InvalidProfile(
                    f"{side}: the contract's {side} have no single value {field.name}"
                )
            if (kind == "string") != (field.labels is not None):
                found = "a text" if kind == "string" else "a number"
                raise InvalidProfile(f"{side}: {field.name} is {found} in the contract, not here")
    if not profile.inputs and not profile.outputs:
        raise InvalidProfile("the profile has neither inputs nor outputs")
    return profile
