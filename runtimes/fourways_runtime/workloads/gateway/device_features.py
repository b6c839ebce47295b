"""Device features: inputs of the contract that devices request by entity key while online.

Owns the feature databases of edge deployments. Returns only inputs that the route lists.
"""

from __future__ import annotations

import logging
from time import time
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter

from fourways_api import EntityKey, GatewayConfig, Route
from fourways_api.modes import FeatureLookup
from fourways_http import HttpError, Request, Response, json_response
from fourways_runtime.errors import WorkloadError
from fourways_runtime.v2.faults import FEATURES, FeatureFault
from fourways_runtime.v2.protocol import read_key, refuse

from .views import rfc3339_at

if TYPE_CHECKING:
    from fourways_runtime.scoring.features import FeatureReader

logger = logging.getLogger("fourways.gateway.features")


class ExtraData:
    """The feature databases of the routes, each opened at its first request."""

    def __init__(self, config: GatewayConfig, faults: Counter) -> None:
        self._config = config
        self._faults = faults
        self._readers: dict[str, FeatureReader] = {}

    async def close(self) -> None:
        """Close all connections."""
        for reader in self._readers.values():
            await reader.close()

    async def answer(self, route: Route, request: Request) -> Response:
        """Answer ``/features/NAME/KEY?inputs=a,b``; without ``inputs``, return all of them."""
        features, entity_key = route.features, route.entity_key
        if features is None or entity_key is None:
            raise HttpError(404, f"{route.deployment} offers no inputs to devices")
        key = read_key(request.params["key"], entity_key)
        asked = request.query.get("inputs")
        names = tuple(dict.fromkeys(asked.split(","))) if asked else features.inputs
        for name in names:
            if name not in features.inputs:
                known = ", ".join(features.inputs)[:256]
                raise refuse("inputs", f"{name[:63]} is not offered; there are: {known}")
        try:
            reader = self._reader(route.deployment, features, entity_key)
            found = (await reader.fetch([key])).get(key)
        except WorkloadError as error:
            # The reason may contain an address, so it only goes to the log.
            details = {"deployment": route.deployment, "reason": error.reason}
            logger.warning("features cannot be read: %s", error, extra=details)
            self._faults.labels(route.deployment, FEATURES.decode()).inc()
            raise FeatureFault("the feature database is not available", {}, 503) from None
        if found is None:
            text = "the feature database has no such key"
            raise HttpError(404, text, deployment=route.deployment, key=key)
        answer: dict[str, Any] = {
            "deployment": route.deployment,
            "key": key,
            "features": {name: found.get(name) for name in names},
            "fetched_at": rfc3339_at(time() - reader.age(key)),
        }
        if features.as_of is not None:
            answer["as_of"] = found.get(features.as_of)
        return json_response(answer)

    def _reader(
        self, deployment: str, features: FeatureLookup, entity_key: EntityKey
    ) -> FeatureReader:
        reader = self._readers.get(deployment)
        if reader is None:
            from fourways_runtime.io.feature_store import open_features

            reader = self._readers[deployment] = open_features(
                features,
                entity_key,
                features.inputs,
                self._config.paths.of(deployment),
                policy=self._config.fetch,
            )
        return reader
