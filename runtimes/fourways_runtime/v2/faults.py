"""Errors that are not the client's fault, with classes of their own so that they can be counted.

They have a module of their own because it is compiled: every subclass of a compiled class such as
HttpError must be compiled too.
"""

from __future__ import annotations

from typing import Any

from fourways_http import HttpError


class ModelFault(HttpError):
    """The model's output breaks the contract: NaN, infinite, out of range, an unknown label."""

    def __init__(self, text: str, more: dict[str, Any], rows: int) -> None:
        super().__init__(500, text, (), **more)
        self.rows = rows


class FeatureFault(HttpError):
    """The feature database holds a value that the contract does not allow."""

    def __init__(self, text: str, more: dict[str, Any]) -> None:
        super().__init__(502, text, (), **more)
