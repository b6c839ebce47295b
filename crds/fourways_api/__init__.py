"""The API of Fourways: types, data contract, mode strategy and the CRD made from them.

Owns the single definition of every type. Knows neither Kubernetes clients nor models.
"""

from .base import ApiModel, Rule
from .contract import Contract, EntityKey, GoldenVectors, InputField, OutputField, Range
from .deployment import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    Condition,
    Metadata,
    ModelDeployment,
    ModelStatus,
    Resources,
    RunStatus,
    Spec,
    Status,
    worker_memory,
    worker_threads,
)
from .documents import Document, load_documents, read_documents
from .model import ModelReference, SecretReference
from .modes import Batch, BatchSource, Edge, Realtime, Streaming
from .problems import InvalidSpec, Problem, check, check_update, parse
from .requirements import Requirements
from .review import Verdict, review
from .runtime_config import FetchPolicy, GatewayConfig, Paths, RunReport, RuntimeConfig
from .strategy import Choice, Contradiction, Mode, Step, choose
from .yaml_text import dump_yaml

__all__ = [
    "API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION",
    "ApiModel", "Batch", "BatchSource", "Choice", "Condition", "Contract", "Contradiction",
    "Document", "Edge", "EntityKey", "FetchPolicy", "GatewayConfig", "GoldenVectors", "InputField",
    "InvalidSpec",
    "Metadata", "Mode", "ModelDeployment", "ModelReference", "ModelStatus", "OutputField", "Paths",
    "Problem", "Range", "Realtime", "Requirements", "Resources", "Rule", "RunReport", "RunStatus",
    "RuntimeConfig", "SecretReference", "Spec", "Status", "Step", "Streaming",
    "Verdict", "check", "check_update", "choose", "dump_yaml", "load_documents", "parse",
    "read_documents", "review", "worker_memory", "worker_threads",
]  # fmt: skip
