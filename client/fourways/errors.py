"""What can go wrong, named by whose fault it is."""

from __future__ import annotations

from typing import Any


class FourwaysError(Exception):
    """Any error of this client. ``details`` are the fields of the gateway's response."""

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class RequestInvalid(FourwaysError):
    """The request breaks the contract: ``field`` and ``reason`` say where and why."""

    @property
    def field(self) -> str | None:
        """The invalid field."""
        return self.details.get("field")

    @property
    def reason(self) -> str | None:
        """What is wrong with it."""
        return self.details.get("reason")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The first bad rows, each with ``row``, ``field`` and ``reason``."""
        return list(self.details.get("rows", ()))


class EventRefused(RequestInvalid):
    """The event became a dead letter of its stream."""


class PredictionMissing(FourwaysError):
    """There is no such deployment, or no prediction for that key."""

    @property
    def keys(self) -> list[Any]:
        """The keys without a prediction, if the request was for several."""
        return list(self.details.get("missing", ()))


class PredictionPending(FourwaysError):
    """The prediction was not there in time. It is still made."""


class CallerRefused(FourwaysError):
    """The credentials are missing, invalid, or do not allow this."""


class GatewayUnavailable(FourwaysError):
    """The gateway, or what it needs, did not answer. Trying later may help."""


class ServerFault(FourwaysError):
    """The model, or the feature database, gave an invalid answer."""
