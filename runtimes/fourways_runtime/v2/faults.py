"""Errors that are not the client's fault, with classes of their own so that they can be counted.

Their responses name the party at fault in a header, so that a gateway in front can count them too.

They have a module of their own because it is compiled: every subclass of a compiled class such as
HttpError must be compiled too.
"""

from __future__ import annotations

from typing import Any

from fourways_http import HttpError

FAULT_HEADER = b"x-fourways-fault"
MODEL, FEATURES = b"model", b"features"
"""The parties other than the client that a failed request may be the fault of."""


def fault_header(party: bytes) -> tuple[bytes, ...]:
    """Return the response header that names the party at fault."""
    return (b"%b: %b" % (FAULT_HEADER, party),)


class ModelFault(HttpError):
    """The model's output breaks the contract: NaN, infinite, out of range, an unknown label."""

    def __init__(self, text: str, more: dict[str, Any], rows: int) -> None:
        super().__init__(500, text, fault_header(MODEL), **more)
        self.rows = rows


class FeatureFault(HttpError):
    """The feature database holds a value that the contract does not allow (502), or is silent."""

    def __init__(self, text: str, more: dict[str, Any], status: int = 502) -> None:
        retry = (b"retry-after: 1",) if status == 503 else ()
        super().__init__(status, text, (*retry, *fault_header(FEATURES)), **more)
