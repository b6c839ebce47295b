"""Fourways for Python: predictions of every mode, and manifests as typed objects.

    from fourways import Client

    with Client("http://127.0.0.1:8080") as client:
        client.predict("churn", key="01760").outputs

A :class:`Client` asks the gateway of a namespace. :class:`AsyncClient` has the same methods for
asyncio.
"""

from __future__ import annotations

from fourways_api import ModelDeployment, manifest, parse

from .async_client import AsyncClient
from .client import Client
from .errors import (
    CallerRefused,
    EventRefused,
    FourwaysError,
    GatewayUnavailable,
    PredictionMissing,
    PredictionPending,
    RequestInvalid,
    ServerFault,
)
from .prediction import Event, Prediction

__all__ = [
    "AsyncClient",
    "CallerRefused",
    "Client",
    "Event",
    "EventRefused",
    "FourwaysError",
    "GatewayUnavailable",
    "ModelDeployment",
    "Prediction",
    "PredictionMissing",
    "PredictionPending",
    "RequestInvalid",
    "ServerFault",
    "manifest",
    "parse",
]
