"""The data contract: inputs and outputs of the model, and the key that identifies an entity."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .base import ApiModel, Rule, no_two_share
from .contract_files import GoldenVectors, LabelFile, TokenizerFile
from .fields import InputField, OutputField
from .schema_hints import keyed_by
from .values import FieldName, KeyType


class EntityKey(ApiModel):
    """Key by which predictions are stored and looked up."""

    name: FieldName
    """Name of the key, which is a column of the source."""

    type: KeyType = "string"
    """Data type of the key."""


ContractFile = TokenizerFile | LabelFile | GoldenVectors
"""A file that belongs to a contract, with its URI and credentials."""


class Contract(ApiModel):
    """Inputs and outputs of the model, and the key that identifies an entity."""

    entity_key: EntityKey
    """Key by which predictions are stored and looked up."""

    inputs: Annotated[tuple[InputField, ...], Field(min_length=1, max_length=256), keyed_by("name")]
    """Inputs of the model, in the order of the model."""

    outputs: Annotated[
        tuple[OutputField, ...], Field(min_length=1, max_length=64), keyed_by("name")
    ]
    """Outputs of the model."""

    labels: LabelFile | None = None
    """Labels by index, in a file: for outputs of type string that have no categories."""

    tokenizer: TokenizerFile | None = None
    """The tokenizer of the inputs with tokens."""

    golden_vectors: GoldenVectors | None = None
    """Known inputs with their expected outputs. A model is verified with them before it is used."""

    @property
    def files(self) -> tuple[ContractFile, ...]:
        """The files that belong to the contract, each with its URI and credentials."""
        found = (self.labels, self.tokenizer, self.golden_vectors)
        return tuple(each for each in found if each is not None)

    @property
    def flat_inputs(self) -> tuple[InputField, ...]:
        """The inputs as records have them: a block of columns is one input for each column."""
        if all(field.columns is None for field in self.inputs):
            return self.inputs
        found: list[InputField] = []
        for field in self.inputs:
            if field.columns is None:
                found.append(field)
                continue
            alike = field.model_copy(update={"columns": None, "shape": ()})
            found += [alike.model_copy(update={"name": name}) for name in field.column_names]
        return tuple(found)

    rules: ClassVar[tuple[Rule, ...]] = (
        no_two_share("inputs", "name", "two inputs share a name", "give each input its own name"),
        no_two_share(
            "outputs", "name", "two outputs share a name", "give each output its own name"
        ),
        Rule(
            "!self.outputs.exists(f, f.name == self.entityKey.name)",
            "an output has the entity key's name",
            "rename the output",
            ".outputs",
        ),
        Rule(
            "!has(self.labels) || self.outputs.exists(f, f.type == 'string' && !has(f.categories))",
            "labels are given, and no output takes them",
            "set the type of an output to string, without categories, or remove labels",
            ".labels",
        ),
        Rule(
            "has(self.tokenizer) == self.inputs.exists(f, has(f.tokens))",
            "a tokenizer and inputs with tokens require each other",
            "set tokenizer to the file, and tokens on the inputs that it reads, or neither",
            ".tokenizer",
        ),
        Rule(
            "self.inputs.all(f, has(f.tensor)) || !self.inputs.exists(f, has(f.tensor))",
            "some inputs name a tensor and others do not",
            "set tensor on every input, or on none",
            ".inputs",
        ),
        Rule(
            "self.entityKey == oldSelf.entityKey",
            "the entity key cannot change: stored predictions are found by it",
            "create a new ModelDeployment",
            ".entityKey",
        ),
    )
