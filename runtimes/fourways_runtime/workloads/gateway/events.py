"""Inference requests to a stream: the key they ask by, and the event they become.

Owns reading a request that may carry the contract's inputs, by the model server's own reader, and
judging them by the contract before they become an event. Imported with numpy and pyarrow.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract
from fourways_http import HttpError, Request
from fourways_runtime.scoring.columns import Columns, Key
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.v2.protocol import KEY_ALIAS, refuse
from fourways_runtime.v2.request import RequestReader

from . import v2

_TOLD_ROWS = 10
_LENGTH = b"inference-header-content-length"
_ID = re.compile(rb"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request understood: what is asked, and the inputs it carries, if it does."""

    question: v2.Question
    columns: Columns | None
    """The contract's inputs, each (keys, \\*shape)."""


class EventReader:
    """Reads the requests for one contract."""

    def __init__(self, contract: Contract, max_keys: int) -> None:
        self._key = contract.entity_key
        self._fields = contract.inputs
        self._reader = RequestReader(contract, [], max_keys)
        self._decoder = Decoder(contract)
        self._max_keys = max_keys

    def read(self, request: Request) -> Asked:
        """Read a request. Raises HttpError 400, naming the field."""
        if request.header(_LENGTH) is None:
            body = request.json()
            if self._by_key_only(body):
                return Asked(v2.question_of(body, self._key, self._max_keys), None)
        read = self._reader.read(request)
        if read.keys is None:
            raise refuse("inputs", f"lacks the entity key: send the tensor {self._key.name}")
        if len(set(read.keys)) != len(read.keys):
            raise refuse("inputs", "a key is asked for twice")
        names = tuple(name for name, _ in read.outputs) if read.outputs is not None else None
        question = v2.Question(read.keys, read.id, names, _allows_missing(request))
        if read.block is None:
            return Asked(question, read.columns)
        block = {field.name: read.block[:, at] for at, field in enumerate(self._fields)}
        return Asked(question, block)

    def _by_key_only(self, body: Any) -> bool:
        inputs = body.get("inputs") if isinstance(body, dict) else None
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
            return False
        name = inputs[0].get("name")
        return name in (self._key.name, KEY_ALIAS) and name not in {f.name for f in self._fields}

    def events(self, asked: Asked, keys: Sequence[Key]) -> dict[Key, bytes]:
        """Return the events of these keys. Raises HttpError 400 for inputs the contract refuses."""
        columns, all_keys = asked.columns, asked.question.keys
        if columns is None:
            return {}
        rows = {key: at for at, key in enumerate(all_keys)}
        wanted = np.array([rows[key] for key in keys])
        values = np.array(keys, np.int64 if self._key.type == "int64" else object)
        chosen = {name: column[wanted] for name, column in columns.items()}
        records, rejects = self._decoder.check(values, chosen, wanted)
        if rejects:
            raise self._refusal(rejects[:_TOLD_ROWS], all_keys, len(rejects))
        told = list(records.columns.items())
        return {
            key: orjson.dumps(
                {self._key.name: key, **{name: _plain(column[at]) for name, column in told}}
            )
            for at, key in enumerate(keys)
        }

    def _refusal(self, rejects: Sequence[Any], keys: Sequence[Key], bad: int) -> HttpError:
        told = [
            {"row": int(r.row), "key": keys[int(r.row)], "field": r.field, "reason": r.reason}
            for r in rejects
        ]
        first = told[0]
        text = f"{first['field']}: {first['reason']} (row {first['row']})"
        more = {"field": first["field"], "reason": first["reason"], "row": first["row"]}
        return HttpError(400, text, **more, rows=told, bad_rows=bad)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _allows_missing(request: Request) -> bool:
    length = request.header(_LENGTH)
    head = request.body if length is None else request.body[: int(length)]
    return v2.read_allow_missing(orjson.loads(head).get("parameters"))


def given_id(request: Request) -> str | None:
    """Return the client's ``Idempotency-Key``. Raises HttpError 400 where it is not one."""
    given = request.header(b"idempotency-key")
    if given is None:
        return None
    if not _ID.fullmatch(given):
        raise refuse("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    return given.decode("ascii")


def made_id(deployment: str, event: bytes, epoch: int | None = None) -> str:
    """Return the id of a question: equal ones (of one epoch, where it is given) have the same."""
    when = b"" if epoch is None else b"%d" % epoch
    text = b"%b\0%b\0%b" % (deployment.encode(), when, event)
    return hashlib.sha256(text).hexdigest()[:32]
