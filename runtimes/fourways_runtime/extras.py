"""Maps a missing library to the optional extra of the package that installs it."""

from __future__ import annotations

from fourways_api.installing import install_command

_EXTRAS = {
    "PIL": "images",
    "adlfs": "az",
    "ai_edge_litert": "litert",
    "confluent_kafka": "kafka",
    "deltalake": "delta",
    "gcsfs": "gs",
    "kserve": "kserve",
    "lightgbm": "lightgbm",
    "model_signing": "edge",
    "nats": "nats",
    "onnx": "edge",
    "opentelemetry": "tracing",
    "pandas": "frames",
    "ray": "ray",
    "s3fs": "s3",
    "skops": "sklearn",
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    **dict.fromkeys(
        (
            "blake3",
            "fsspec",
            "google",
            "httpcore",
            "httptools",
            "httpx",
            "numpy",
            "onnxruntime",
            "prometheus_client",
            "psycopg",
            "psycopg_pool",
            "pyarrow",
            "tenacity",
        ),
        "runtime",
    ),
}
"""The extra of each library that a workload imports, by the name of its top-level package."""


def missing_library(error: BaseException) -> str | None:
    """Return the message for a library that is not installed; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    library = error.name.partition(".")[0]
    extra = _EXTRAS.get(library)
    if extra is None:
        return None
    return f"the library {library} is not installed: {install_command(extra)}"
