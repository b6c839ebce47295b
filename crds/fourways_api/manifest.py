"""The types of a manifest, to write one in Python.

    from fourways_api import manifest as m

    made = m.deployment("churn", m.Spec(mode="batch", model=m.ModelReference(...), ...))
    print(made.to_yaml())

Every type that a spec can contain is here, under the name that the reference of the custom resource
and ``kubectl explain`` follow. Fields have snake_case names; they are written in camelCase.
"""

from __future__ import annotations

from collections.abc import Mapping

from .contract import Contract, EntityKey
from .contract_files import GoldenVectors, LabelFile, TokenizerFile
from .deployment import API_VERSION, KIND, Metadata, ModelDeployment
from .fields import InputField, OutputField, Range
from .image_input import ImageInput
from .model import ModelReference, SecretReference
from .modes import Batch, BatchSource, Edge, FeatureLookup, Realtime, Streaming, StreamSource
from .modes.batch import (
    Checks,
    ColumnName,
    FileSink,
    Incremental,
    PartitionFilter,
    Sink,
    SourceQuery,
    TableSink,
)
from .modes.edge import Budget, EdgeTarget
from .modes.features import FeatureDefault
from .modes.realtime import RequestLimits
from .modes.serving_runtime import ServingRuntimeReference
from .modes.streaming import KafkaSource, MicroBatch, NatsSource
from .monitoring import Monitoring, ProfileFile
from .pod import NodeRequirement, Pod, Toleration, TopologySpread, Variable
from .problems import parse
from .quality import Quality
from .requirements import Requirements
from .spec import Resources, Spec
from .text_input import TokensInput

__all__ = [
    "Batch",
    "BatchSource",
    "Budget",
    "Checks",
    "ColumnName",
    "Contract",
    "Edge",
    "EdgeTarget",
    "EntityKey",
    "FeatureDefault",
    "FeatureLookup",
    "FileSink",
    "GoldenVectors",
    "ImageInput",
    "Incremental",
    "InputField",
    "KafkaSource",
    "LabelFile",
    "Metadata",
    "MicroBatch",
    "ModelDeployment",
    "ModelReference",
    "Monitoring",
    "NatsSource",
    "NodeRequirement",
    "OutputField",
    "PartitionFilter",
    "Pod",
    "ProfileFile",
    "Quality",
    "Range",
    "Realtime",
    "RequestLimits",
    "Requirements",
    "Resources",
    "SecretReference",
    "ServingRuntimeReference",
    "Sink",
    "SourceQuery",
    "Spec",
    "StreamSource",
    "Streaming",
    "TableSink",
    "TokenizerFile",
    "TokensInput",
    "Toleration",
    "TopologySpread",
    "Variable",
    "deployment",
]


def deployment(
    name: str,
    spec: Spec,
    *,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> ModelDeployment:
    """Return a deployment that the API server accepts.

    Raises:
        InvalidSpec: it breaks a rule; each problem names field, fault and fix.

    """
    metadata = {
        "name": name,
        **({"namespace": namespace} if namespace is not None else {}),
        **({"labels": dict(labels)} if labels else {}),
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    given = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return parse({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": given})
