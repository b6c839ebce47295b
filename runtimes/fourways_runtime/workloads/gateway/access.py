"""What a caller must be allowed to do for each of the gateway's paths.

A path that is missing here keeps the gateway from starting, so that none is served unguarded.
"""

from __future__ import annotations

from fourways_runtime.callers.guard import Access

from .openai import PATHS

ACCESS: Access = {
    # Probes carry no credentials, and say only whether the gateway works.
    (b"GET", "/v2/health/live"): None,
    (b"GET", "/v2/health/ready"): None,
    (b"GET", "/v2"): None,
    # Pages ask the other paths with the credentials of their request, and show no more.
    (b"GET", "/"): None,
    (b"GET", "/deployments/{deployment}"): None,
    (b"GET", "/assets/page.css"): None,
    (b"GET", "/assets/page.js"): None,
    (b"GET", "/deployments"): "read",
    (b"GET", "/deployments/{deployment}/drift"): "read",
    (b"GET", "/deployments/{deployment}/devices"): "read",
    (b"GET", "/deployments/{deployment}/workers"): "read",
    (b"GET", "/deployments/{deployment}/answers"): "predict",
    (b"GET", "/deployments/{deployment}/dead-letters"): "rejects",
    (b"GET", "/metrics"): "metrics",
    (b"GET", "/v2/models"): "read",
    (b"POST", "/v2/repository/index"): "read",
    (b"GET", "/v1/models"): "read",
    (b"GET", "/v1/models/{deployment}"): "read",
    (b"POST", "/v1/models/{deployment}:predict"): "predict",
    (b"GET", "/predictions/{deployment}/{key}"): "predict",
    (b"GET", "/v2/models/{deployment}"): "read",
    (b"GET", "/v2/models/{deployment}/ready"): "read",
    (b"GET", "/v2/models/{deployment}/openapi.json"): "read",
    (b"POST", "/v2/models/{deployment}/infer"): "predict",
    (b"GET", "/v2/models/{deployment}/versions/{version}"): "read",
    (b"GET", "/v2/models/{deployment}/versions/{version}/ready"): "read",
    (b"GET", "/v2/models/{deployment}/versions/{version}/openapi.json"): "read",
    (b"POST", "/v2/models/{deployment}/versions/{version}/infer"): "predict",
    (b"GET", "/openai/v1/models"): "read",
    **{(b"POST", f"/openai/v1/{path}"): "predict" for path in PATHS},
    (b"GET", "/demand"): "read",
    (b"GET", "/runs"): "read",
    (b"GET", "/runs/{deployment}"): "read",
    (b"GET", "/runs/{deployment}/diff"): "read",
    (b"GET", "/runs/{deployment}/{run}/progress"): "read",
    (b"GET", "/runs/{deployment}/{run}/rejects"): "rejects",
    (b"GET", "/bundles/{deployment}"): "bundles",
    (b"GET", "/bundles/{deployment}/"): "bundles",
    (b"GET", "/bundles/{deployment}/{target}/{file}"): "bundles",
    (b"GET", "/bundles/{deployment}/{target}/blobs/sha256/{digest}"): "bundles",
    (b"POST", "/bundles/{deployment}/{target}/drift"): "bundles",
    (b"GET", "/features/{deployment}/{key}"): "features",
}
