"""Inference requests to a stream: reads their keys and converts them to events.

Requests may carry the contract's inputs. Owns reading them, with the same reader as the model
server, and checking the inputs against the contract before they become an event. Imports numpy and
pyarrow.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract
from fourways_http import Request
from fourways_runtime.scoring.columns import Key
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.v2.protocol import refuse
from fourways_runtime.v2.request import InferenceRequest, RequestReader

_ID = re.compile(rb"[\x21-\x7e]{1,255}")


class EventReader:
    """Reads requests according to one contract."""

    def __init__(self, contract: Contract, max_keys: int, max_body_bytes: int) -> None:
        self._key = contract.entity_key
        self._fields = contract.inputs
        self._decoder = Decoder(contract)
        self.read = RequestReader(
            contract, [], max_keys, keyed="required", max_body_bytes=max_body_bytes
        ).read
        """Reads a request. Raises HttpError 400, 413 or 415, naming the field."""

    def events(self, inference: InferenceRequest, keys: Sequence[Key]) -> dict[Key, bytes]:
        """Return the events of these keys; empty if the request holds only keys.

        Raises HttpError 400 for inputs that break the contract.
        """
        columns, all_keys = inference.columns, inference.keys or []
        if inference.block is not None:
            block = inference.block
            columns = {field.name: block[:, at] for at, field in enumerate(self._fields)}
        if not columns:
            return {}
        rows = {key: at for at, key in enumerate(all_keys)}
        wanted = np.array([rows[key] for key in keys])
        values = np.array(keys, np.int64 if self._key.type == "int64" else object)
        chosen = {name: column[wanted] for name, column in columns.items()}
        records, rejects = self._decoder.check(values, chosen, wanted)
        if rejects:
            raise inference.refuse([(int(r.row), r.field, r.reason) for r in rejects])
        told = list(records.columns.items())
        return {
            key: orjson.dumps(
                {self._key.name: key, **{name: _plain(column[at]) for name, column in told}}
            )
            for at, key in enumerate(keys)
        }


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def given_id(request: Request) -> str | None:
    """Return the client's ``Idempotency-Key``. Raises HttpError 400 if it is invalid."""
    given = request.header(b"idempotency-key")
    if given is None:
        return None
    if not _ID.fullmatch(given):
        raise refuse("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    return given.decode("ascii")


def made_id(deployment: str, event: bytes, epoch: int | None = None) -> str:
    """Return the id of an event: equal events (of one epoch, if given) have the same id."""
    when = b"" if epoch is None else b"%d" % epoch
    text = b"%b\0%b\0%b" % (deployment.encode(), when, event)
    return hashlib.sha256(text).hexdigest()[:32]
