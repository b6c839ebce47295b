"""A model of tokens as a model of texts: each text is cut, padded and given as tensors.

Owns how a text becomes tensors. It wraps the model, so every mode does the same and a text is an
input like any other. What a text gives depends on nothing else in its batch: its length is padded
to one that the contract says, and texts of one padded length are scored together.

The library is imported only for a contract with tokens. Nothing is fetched from a hub.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fourways_api import Contract, InputField
from fourways_api.display import displayed
from fourways_api.text_input import TokensInput
from fourways_runtime.errors import ContractMismatch, ModelError

from ..columns import Array
from .base import Model, SelectiveModel, Tensor
from .extras import load_module
from .library_errors import library_error
from .row_by_row import RowByRow

MAX_BYTES = 64 * 2**20
"""Maximum size of a tokenizer's file."""

_CALL_BYTES = 2**18
"""Maximum bytes of tokens per call of the model, as for other inputs."""

_PADS = ("[PAD]", "<pad>")
_INTEGERS = ("int32", "int64", "uint32", "uint64", "int16")
_NUMBERS = (*_INTEGERS, "float32", "float64", "float16", "bool", "int8", "uint8")


def reading_texts(model: Model, contract: Contract, tokenizer: Path | None) -> Model:
    """Return the model with the contract's texts in place of the tensors of their tokens.

    ``tokenizer`` is the file of the contract's tokenizer. A model of a contract without tokens is
    returned as it is.

    Raises:
        ContractMismatch: naming the setting that does not fit the file or the model.
        ConfigError: the library is not installed.

    """
    fields = [field for field in contract.inputs if field.tokens is not None]
    if not fields:
        return model
    if tokenizer is None:
        raise ContractMismatch("contract.tokenizer: the file of the tokenizer is missing")
    try:
        raw = tokenizer.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ContractMismatch(f"contract.tokenizer: byte {error.start} is not UTF-8") from None
    if isinstance(model, RowByRow):
        return model.around(lambda each: TextModel(each, fields, raw))
    return TextModel(model, fields, raw)


class _Encoder:
    """Turns the texts of one input into tensors. Thread-safe."""

    def __init__(self, field: InputField, wanted: TokensInput, raw: str, model: Model) -> None:
        """Read the tokenizer (JSON) and find the model's tensors. Raises ContractMismatch."""
        self._wanted = wanted
        self.place = f"input {field.name}: tokens"
        declared = bool(model.inputs)
        self.text = (field.tensor or field.name) if declared else field.name
        self._library = _tokenizer(raw)
        self._pad, self._pad_type, self._left = self._padding()
        self._cut()
        self._tensors = self._found(model.inputs)
        self.names = frozenset(name for name, _, _ in self._tensors)
        self.batch = model.inputs[0].shape[0] if declared and model.inputs[0].shape else None

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """Return the tokens of each text, at most maxLength. Raises ModelError."""
        try:
            found: list[Any] = self._library.encode_batch_fast(
                list(texts), add_special_tokens=self._wanted.special_tokens
            )
        except Exception as error:  # noqa: BLE001  (the library has no errors of its own)
            # Its text may quote the text of a record.
            raise ModelError(
                f"{self.place}: the tokenizer fails ({type(error).__name__})"
            ) from None
        return found

    def width(self, tokens: Any) -> int:
        """Return the length to which a text is padded."""
        most, step = self._wanted.max_length, self._wanted.pad_to_multiple_of
        return most if step is None else min(most, max(1, -(-len(tokens) // step)) * step)

    def tensors(self, encoded: Sequence[Any], width: int) -> dict[str, Array]:
        """Return the model's tensors (texts, width)."""
        made: dict[str, Array] = {}
        for name, kind, part in self._tensors:
            blank = {"ids": self._pad, "type_ids": self._pad_type}.get(part, 0)
            tensor = np.full((len(encoded), width), blank, kind)
            for at, tokens in enumerate(encoded):
                count = len(tokens)
                row = tensor[at, width - count :] if self._left else tensor[at, :count]
                row[:] = 1 if part == "mask" else getattr(tokens, part)
            made[name] = tensor
        return made

    def _padding(self) -> tuple[int, int, bool]:
        """Return number and type of the padding token, and whether it stands on the left."""
        said = self._library.padding or {}
        self._library.no_padding()
        left = said.get("direction") == "left"
        wanted = self._wanted.pad_token
        if wanted is None and said:
            return said["pad_id"], said["pad_type_id"], left
        for token in _PADS if wanted is None else (wanted,):
            number = self._library.token_to_id(token)
            if number is not None:
                return number, 0, left
        raise ContractMismatch(
            f"{self.place}.padToken: the tokenizer has no token"
            f" {' or '.join(_PADS) if wanted is None else displayed(wanted, 128)}; name one of its"
            " tokens"
        )

    def _cut(self) -> None:
        added = 0
        if self._wanted.special_tokens:
            added = self._library.num_special_tokens_to_add(is_pair=False)
        if self._wanted.max_length <= added:
            raise ContractMismatch(
                f"{self.place}.maxLength: the tokenizer adds {added} special tokens to each text;"
                " set it to more, or specialTokens to false"
            )
        side = self._wanted.truncation_side.lower()
        self._library.enable_truncation(self._wanted.max_length, direction=side)

    def _found(self, inputs: Sequence[Tensor]) -> list[tuple[str, Any, str]]:
        """Return name and type of each tensor to fill, and the part of the tokens that fills it."""
        wanted = self._wanted
        by_name = {tensor.name: tensor for tensor in inputs}
        found: list[tuple[str, Any, str]] = []
        for part, name, setting in (
            ("ids", wanted.ids, "ids"),
            ("mask", wanted.mask, "mask"),
            ("type_ids", wanted.type_ids, "typeIds"),
        ):
            if not inputs and part != "type_ids":
                found.append((name, np.int64, part))
            elif name in by_name:
                self._check(by_name[name], part, setting)
                found.append((name, np.dtype(by_name[name].type or "int64"), part))
            elif part == "ids" or name != TokensInput.model_fields[part].default:
                theirs = ", ".join(displayed(each, 80) for each in list(by_name)[:30])
                raise ContractMismatch(
                    f"{self.place}.{setting}: the model has no input {displayed(name, 80)}; its"
                    f" inputs are {theirs}"
                )
        return found

    def _check(self, tensor: Tensor, part: str, setting: str) -> None:
        name = displayed(tensor.name, 80)
        kinds = _INTEGERS if part == "ids" else _NUMBERS
        if tensor.type and tensor.type not in kinds:
            raise ContractMismatch(
                f"{self.place}.{setting}: the model's input {name} is {tensor.type}, which takes no"
                " tokens; name the input that does"
            )
        if tensor.shape and len(tensor.shape) != 2:
            raise ContractMismatch(
                f"{self.place}.{setting}: the model's input {name} has {len(tensor.shape)}"
                " dimensions; tokens are a matrix of texts and positions"
            )
        fixed = tensor.shape[1] if tensor.shape else None
        if fixed is not None and (
            fixed != self._wanted.max_length or self._wanted.pad_to_multiple_of is not None
        ):
            raise ContractMismatch(
                f"{self.place}.maxLength: the model's input {name} takes {fixed} tokens; set"
                f" maxLength to {fixed}, without padToMultipleOf"
            )


class TextModel:
    """A model that reads texts. As thread-safe as the model it wraps."""

    def __init__(self, model: Model, fields: Sequence[InputField], raw: str) -> None:
        """Wrap a model; ``raw`` is the tokenizer's file. Raises ContractMismatch."""
        encoders = [
            _Encoder(field, field.tokens, raw, model)
            for field in fields
            if field.tokens is not None
        ]
        filled = [name for each in encoders for name in each.names]
        twice = next((name for name in filled if filled.count(name) > 1), None)
        if twice is not None:
            raise ContractMismatch(
                f"two inputs give tokens to the model's {displayed(twice, 80)}; name tensors of"
                " their own in ids, mask and typeIds of each"
            )
        self._model, self._encoders = model, tuple(encoders)
        rest = tuple(each for each in model.inputs if each.name not in filled)
        texts = tuple(Tensor(each.text, "string", (each.batch,)) for each in encoders)
        self.inputs = (*texts, *rest) if model.inputs else ()
        self.outputs = model.outputs

    def answering(self, outputs: Collection[str]) -> TextModel:
        """Return the same model with fewer outputs; see :class:`.base.SelectiveModel`."""
        if not isinstance(self._model, SelectiveModel):
            return self
        fewer = object.__new__(TextModel)
        fewer._model, fewer._encoders = self._model.answering(outputs), self._encoders
        fewer.inputs, fewer.outputs = self.inputs, self.outputs
        return fewer

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch; see :class:`.base.Model`."""
        encoded = [each.encode(tensors[each.text].reshape(-1).tolist()) for each in self._encoders]
        texts = {each.text for each in self._encoders}
        rest = {name: values for name, values in tensors.items() if name not in texts}
        groups: dict[tuple[int, ...], list[int]] = {}
        for at, tokens in enumerate(zip(*encoded, strict=True)):
            widths = tuple(e.width(each) for e, each in zip(self._encoders, tokens, strict=True))
            groups.setdefault(widths, []).append(at)
        order: list[int] = []
        answers: list[dict[str, Array]] = []
        for widths, records in groups.items():
            # Three tensors of up to eight bytes.
            size = max(1, _CALL_BYTES // (24 * sum(widths)))
            for start in range(0, len(records), size):
                some = records[start : start + size]
                given = {name: values[some] for name, values in rest.items()}
                for encoder, each, width in zip(self._encoders, encoded, widths, strict=True):
                    given |= encoder.tensors([each[at] for at in some], width)
                answers.append(self._model.predict(given))
                order += some
        return answers[0] if len(answers) == 1 else _joined(answers, order)


def _joined(answers: Sequence[Mapping[str, Array]], order: Sequence[int]) -> dict[str, Array]:
    """Join the outputs of groups of records in the order of the records."""
    back = np.argsort(order)
    try:
        return {name: np.concatenate([e[name] for e in answers])[back] for name in answers[0]}
    except (KeyError, ValueError, IndexError):
        raise ContractMismatch(
            "the model returns outputs of another shape for texts of another length; reduce them"
            " inside the model, or remove tokens.padToMultipleOf"
        ) from None


def _tokenizer(raw: str) -> Any:
    # Its threads would be as many as the machine has cores, whatever the limit of the pod.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    library = load_module("tokenizers", "text")
    try:
        found = library.Tokenizer.from_str(raw)
    except Exception as error:  # noqa: BLE001  (the library has no errors of its own)
        raise ContractMismatch(
            f"contract.tokenizer: the file is not a tokenizer.json ({library_error(error)})"
        ) from None
    if getattr(found.model, "dropout", None):
        raise ContractMismatch(
            "contract.tokenizer: the tokenizer leaves merges out at random (dropout); export it"
            " with dropout null"
        )
    return found
