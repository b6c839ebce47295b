"""The settings of each mode. ``spec.mode`` is the tag that selects one of them."""

from .batch import (
    Batch,
    BatchSource,
    Checks,
    ColumnName,
    FileSink,
    Incremental,
    PartitionFilter,
    RejectLimit,
    Sink,
    SourceQuery,
    TableSink,
)
from .edge import Budget, Edge, EdgeTarget
from .features import FeatureDefault, FeatureLookup
from .realtime import Realtime
from .serving_runtime import ServingRuntimeReference
from .streaming import (
    KafkaSource,
    MicroBatch,
    NatsSource,
    Streaming,
    StreamSource,
)

__all__ = [
    "Batch",
    "BatchSource",
    "Budget",
    "Checks",
    "ColumnName",
    "Edge",
    "EdgeTarget",
    "FeatureDefault",
    "FeatureLookup",
    "FileSink",
    "Incremental",
    "KafkaSource",
    "MicroBatch",
    "NatsSource",
    "PartitionFilter",
    "Realtime",
    "RejectLimit",
    "ServingRuntimeReference",
    "Sink",
    "SourceQuery",
    "StreamSource",
    "Streaming",
    "TableSink",
]
