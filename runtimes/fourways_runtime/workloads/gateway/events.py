"""Inference requests to a stream: reads their keys and converts them to events.

Requests may carry the contract's inputs. Owns reading them, with the same reader as the model
server, and checking the inputs against the contract before they become an event. Imports numpy and
pyarrow.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
        self._fields = contract.flat_inputs
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
        if not columns or not keys:
            return {}
        rows = {key: at for at, key in enumerate(all_keys)}
        wanted = np.array([rows[key] for key in keys])
        values = np.array(keys, np.int64 if self._key.type == "int64" else object)
        chosen = {name: column[wanted] for name, column in columns.items()}
        records, rejects = self._decoder.check(values, chosen, wanted)
        if rejects:
            raise inference.refuse([(int(r.row), r.field, r.reason) for r in rejects])
        by_name = list(records.columns.items())
        return {
            key: orjson.dumps(
                {self._key.name: key, **{name: _plain(column[at]) for name, column in by_name}},
                default=_base64,
            )
            for at, key in enumerate(keys)
        }


def _base64(value: Any) -> str:
    """Return bytes, which JSON cannot represent, as events hold them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's ``Idempotency-Key``: another client's key of the same text is another key."""

    caller: str
    text: bytes
    payload: bytes
    """Digest of the request that the key came with."""


def idempotency_key(request: Request) -> IdempotencyKey | None:
    """Return a request's key, None if it has none. Raises HttpError 400 if it is invalid."""
    given = request.header(b"idempotency-key")
    if given is None:
        return None
    if not _ID.fullmatch(given):
        raise refuse("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    return IdempotencyKey(request.caller, given, hashlib.sha256(request.body).digest())


def made_id(
    deployment: str, event: bytes, epoch: int | None = None, key: IdempotencyKey | None = None
) -> str:
    """Return the id of an event: equal events have the same id.

    They are told apart by ``epoch`` and by ``key``, if given. The prefix keeps ids of gateways
    apart from those of other producers: a broker that drops events with a known id must not drop a
    producer's event because of a request, nor the reverse.
    """
    when = b"" if epoch is None else b"%d" % epoch
    whose = b"" if key is None else b"%b\0%b" % (key.caller.encode(), key.text)
    parts = (deployment.encode(), when, whose, event)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return "fourways-" + digest.hexdigest()[:32]
