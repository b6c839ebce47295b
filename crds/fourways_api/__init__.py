"""The API of Fourways: types, data contract, mode strategy and the CRD made from them.

Owns the single definition of every type. Knows neither Kubernetes clients nor models. A name is
imported when it is first used: a worker needs only a few of the types and must start quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import ApiModel, Rule
    from .contract import Contract, EntityKey
    from .contract_files import GoldenVectors
    from .deployment import API_VERSION, GROUP, KIND, PLURAL, VERSION, Metadata, ModelDeployment
    from .documents import Document, load_documents, read_documents
    from .fields import InputField, OutputField, Range
    from .model import ModelReference, SecretReference
    from .modes import Batch, BatchSource, Edge, FeatureLookup, Realtime, Streaming, StreamSource
    from .monitoring import Monitoring, ProfileFile
    from .problems import InvalidSpec, Problem, check, check_update, parse
    from .requirements import Requirements
    from .review import Verdict, review
    from .runtime_config import (
        EdgeConfig,
        FetchPolicy,
        GatewayConfig,
        Paths,
        PurgeConfig,
        QualityConfig,
        Route,
        RunReport,
        RuntimeConfig,
        ServerConfig,
        StoredData,
        StreamConfig,
        WakeConfig,
    )
    from .spec import Resources, Spec, worker_memory, worker_threads
    from .status import (
        MAX_WORKERS_REPORTED,
        BundleStatus,
        ColdStartStatus,
        Condition,
        DriftStatus,
        FieldDrift,
        ModelStatus,
        ProgressStatus,
        QualityMetric,
        QualityStatus,
        RunStatus,
        Status,
        WorkerStatus,
    )
    from .strategy import Choice, Contradiction, Mode, Step, choose
    from .yaml_text import dump_yaml

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "MAX_WORKERS_REPORTED",
    "PLURAL",
    "VERSION",
    "ApiModel",
    "Batch",
    "BatchSource",
    "BundleStatus",
    "Choice",
    "ColdStartStatus",
    "Condition",
    "Contract",
    "Contradiction",
    "Document",
    "DriftStatus",
    "Edge",
    "EdgeConfig",
    "EntityKey",
    "FeatureLookup",
    "FetchPolicy",
    "FieldDrift",
    "GatewayConfig",
    "GoldenVectors",
    "InputField",
    "InvalidSpec",
    "Metadata",
    "Mode",
    "ModelDeployment",
    "ModelReference",
    "ModelStatus",
    "Monitoring",
    "OutputField",
    "Paths",
    "Problem",
    "ProfileFile",
    "ProgressStatus",
    "PurgeConfig",
    "QualityConfig",
    "QualityMetric",
    "QualityStatus",
    "Range",
    "Realtime",
    "Requirements",
    "Resources",
    "Route",
    "Rule",
    "RunReport",
    "RunStatus",
    "RuntimeConfig",
    "SecretReference",
    "ServerConfig",
    "Spec",
    "Status",
    "Step",
    "StoredData",
    "StreamConfig",
    "StreamSource",
    "Streaming",
    "Verdict",
    "WakeConfig",
    "WorkerStatus",
    "check",
    "check_update",
    "choose",
    "dump_yaml",
    "load_documents",
    "parse",
    "read_documents",
    "review",
    "worker_memory",
    "worker_threads",
]

_HOMES = {
    "base": "ApiModel Rule",
    "contract": "Contract EntityKey",
    "contract_files": "GoldenVectors",
    "deployment": "API_VERSION GROUP KIND PLURAL VERSION Metadata ModelDeployment",
    "documents": "Document load_documents read_documents",
    "fields": "InputField OutputField Range",
    "model": "ModelReference SecretReference",
    "modes": "Batch BatchSource Edge FeatureLookup Realtime Streaming StreamSource",
    "monitoring": "Monitoring ProfileFile",
    "problems": "InvalidSpec Problem check check_update parse",
    "requirements": "Requirements",
    "review": "Verdict review",
    "runtime_config": "EdgeConfig FetchPolicy GatewayConfig Paths PurgeConfig QualityConfig"
    " Route RunReport RuntimeConfig ServerConfig StoredData StreamConfig WakeConfig",
    "spec": "Resources Spec worker_memory worker_threads",
    "status": "MAX_WORKERS_REPORTED BundleStatus ColdStartStatus Condition DriftStatus FieldDrift"
    " ModelStatus ProgressStatus QualityMetric QualityStatus RunStatus Status WorkerStatus",
    "strategy": "Choice Contradiction Mode Step choose",
    "yaml_text": "dump_yaml",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a name's module and cache every name that it exports."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f".{_HOME[name]}", __name__)
        # All at once: if a module has the same name as one of its exports, importing the module
        # would hide that export.
        globals().update({other: getattr(module, other) for other in _HOMES[_HOME[name]].split()})
        return globals()[name]
