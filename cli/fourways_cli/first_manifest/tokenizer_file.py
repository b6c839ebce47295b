"""A tokenizer beside a model that reads tokens: then the deployment's input is the text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourways_api import Contract
from fourways_api.text_input import MAX_TOKENS, TokensInput
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.model.text_model import MAX_BYTES, reading_texts

NAME = "text"
"""Name of the input."""

_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_IDS = TokensInput.model_fields["ids"].default
_USUAL = 512
_STEP = 32


@dataclass(frozen=True, slots=True)
class TokenizerBeside:
    """A tokenizer's file, and the settings with which the model reads texts."""

    path: Path
    digest: str
    tokens: dict[str, Any]
    """As in the manifest."""

    def of_contract(self, uri: str) -> dict[str, Any]:
        """Return the contract's ``tokenizer``."""
        return {"uri": uri, "digest": self.digest}


def with_tokenizer(model: Model, model_file: Path) -> tuple[Model, TokenizerBeside | None]:
    """Return the model with the text as its input if a tokenizer is beside it that it reads.

    Raises:
        WorkloadError: the file is no tokenizer, or does not fit the model.

    """
    path = model_file.parent / _FILE
    ids = next((each for each in model.inputs if each.name == _IDS), None)
    if ids is None or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return model, None
    raw = path.read_bytes()
    tokens = _settings(path, raw, ids.shape[1] if len(ids.shape) == 2 else None)
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    found = TokenizerBeside(path, digest, tokens)
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": NAME, "type": "string", "tokens": tokens}],
            "outputs": [{"name": "unread_output", "type": "float32"}],
            "tokenizer": found.of_contract(path.resolve().as_uri()),
        }
    )
    return reading_texts(model, contract, path), found


def _settings(path: Path, raw: bytes, fixed: int | None) -> dict[str, Any]:
    if fixed is not None:
        return {"maxLength": min(fixed, MAX_TOKENS)}
    said = (_json(raw).get("truncation") or {}).get("max_length")
    beside = path.with_name(_SETTINGS)
    if said is None and beside.is_file() and beside.stat().st_size <= MAX_BYTES:
        said = _json(beside.read_bytes()).get("model_max_length")
    # Where no length is known, the file has 10 to the power of 30.
    length = said if isinstance(said, int) and 0 < said <= MAX_TOKENS else _USUAL
    return {"maxLength": length, "padToMultipleOf": min(length, _STEP)}


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
