"""The ModelDeployment: its spec, its status, and the mode its spec comes to."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from .addresses import Image
from .base import ApiModel, Rule
from .contract import Contract
from .model import ModelReference
from .modes import Batch, Edge, Realtime, Streaming
from .requirements import Requirements
from .schema_hints import keyed_by
from .strategy import TREE_IN_CEL, Choice, Contradiction, choose
from .values import CpuQuantity, MemoryQuantity, bytes_of, cores

GROUP = "fourways.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"

MAX_NAME = 43
"""A CronJob's name has 52 characters at the most; the rest is for what is put before and behind."""

ModeName = Literal["auto", "batch", "realtime", "streaming", "edge"]
Workload = Batch | Realtime | Streaming | Edge
LabelKey = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?([A-Za-z0-9][A-Za-z0-9._-]*)?[A-Za-z0-9]$",
        max_length=317,
    ),
]
LabelValue = Annotated[
    str, Field(pattern=r"^(([A-Za-z0-9][A-Za-z0-9._-]*)?[A-Za-z0-9])?$", max_length=63)
]


class Resources(ApiModel):
    """CPU and memory of one worker: request and limit alike, so that it gets what was promised."""

    cpu: CpuQuantity = "1"
    """Cores. onnxruntime uses as many threads."""

    memory: MemoryQuantity = "1Gi"
    """Memory. A worker that takes more is killed."""


class Spec(ApiModel):
    """Desired state."""

    mode: ModeName = "auto"
    """How the model reaches production; auto chooses by requirements. The block of the same name
    holds the mode's settings; other blocks wait unused, so that changing the mode is one edit."""

    requirements: Requirements | None = None
    """What the users of the model need. mode auto decides by it."""

    model: ModelReference
    """The model artefact."""

    contract: Contract
    """The data contract."""

    batch: Batch | None = None
    """Settings of mode batch."""

    realtime: Realtime | None = None
    """Settings of mode realtime."""

    streaming: Streaming | None = None
    """Settings of mode streaming."""

    edge: Edge | None = None
    """Settings of mode edge."""

    resources: Resources = Resources()
    """CPU and memory of one worker."""

    image: Image | None = None
    """Image of the workers, for a model of format python. Default: the Fourways runtime."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *(
            Rule(
                f"self.mode != '{mode}' || has(self.{mode})",
                f"mode {mode} has no settings",
                f"add the block {mode}",
                f".{mode}",
                "FieldValueRequired",
            )
            for mode in ("batch", "realtime", "streaming", "edge")
        ),
        Rule(
            "self.mode != 'auto' || has(self.requirements)",
            "mode auto has nothing to decide by",
            "add requirements, or name a mode",
            ".requirements",
            "FieldValueRequired",
        ),
        *(
            Rule(
                f"self.mode != 'auto' || !has(self.requirements) || !({leads_there})"
                f" || has(self.{mode})",
                f"requirements lead to mode {mode}, which has no settings",
                f"add the block {mode}, or change requirements (fourways explain tells why)",
                f".{mode}",
                "FieldValueRequired",
            )
            for mode, leads_there in TREE_IN_CEL.items()
        ),
        Rule(
            "self.mode != 'edge' || !has(self.edge) || has(self.contract.goldenVectors)",
            "a device holds a model to golden vectors before it uses it, and there are none",
            "set contract.goldenVectors",
            ".contract.goldenVectors",
            "FieldValueRequired",
        ),
        Rule(
            "self.mode != 'edge' || !has(self.edge) || self.model.format == 'onnx'",
            "devices run ONNX models only",
            "export the model to ONNX",
            ".model.format",
        ),
        Rule(
            "has(self.image) || self.model.format != 'python'",
            "a model of format python needs an image with its code",
            "set image",
            ".image",
            "FieldValueRequired",
        ),
        *(
            Rule(
                f"!has(self.{mode}) || !has(self.{mode}.features) ||"
                f" self.{mode}.features.{part}.all(i,"
                f" self.contract.inputs.exists(f, f.name == {name}))",
                "features names an input that the contract does not have",
                "name inputs of spec.contract.inputs",
                f".{mode}.features.{part}",
            )
            for mode in ("realtime", "edge")
            for part, name in (("inputs", "i"), ("defaults", "i.name"))
        ),
    )

    def choice(self) -> Choice:
        """Return the mode this spec comes to, with the reason.

        Raises:
            Contradiction: the requirements exclude each other, or the settings of the mode they
                lead to are missing.

        """
        if self.mode != "auto":
            return Choice(self.mode, "spec.mode says so", ())
        choice = choose(self.requirements or Requirements())
        if getattr(self, choice.mode) is None:
            raise Contradiction(
                f"auto chose {choice.mode} because {choice.reason}, but spec.{choice.mode} is "
                f"missing: add the block {choice.mode}, or change requirements"
            )
        return choice


class Metadata(ApiModel):
    """The part of Kubernetes object metadata that Fourways reads."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


MAX_CONDITION_MESSAGE = 4096


class Condition(ApiModel):
    """One aspect of a deployment's state, as Kubernetes writes conditions."""

    type: Annotated[str, Field(max_length=63)]
    """Name of the aspect."""

    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""

    observed_generation: int = 0
    """Generation of the spec that the condition is true of."""

    last_transition_time: Annotated[str, Field(max_length=32)]
    """When status last changed, RFC 3339."""

    reason: Annotated[str, Field(max_length=128)]
    """One word for programs (docs/reference/reasons.md)."""

    message: Annotated[str, Field(max_length=MAX_CONDITION_MESSAGE)]
    """Explanation for people."""


class ModelStatus(ApiModel):
    """The model as resolved."""

    version: Annotated[str, Field(max_length=63)] | None = None
    """Version that serves."""

    digest: Annotated[str, Field(max_length=71)] | None = None
    """sha256 of the model: from the spec, or pinned at its first download."""

    uri: Annotated[str, Field(max_length=2048)] | None = None
    """URI the digest was pinned for."""


MAX_WORKERS_TOLD = 32


class WorkerStatus(ApiModel):
    """What one worker has recorded of a run under way."""

    name: Annotated[str, Field(max_length=253)]
    """The worker's host, and its index where there are several. One tried again is another."""

    rows: Annotated[int, Field(ge=0)]
    """Rows recorded."""

    rejects: Annotated[int, Field(ge=0)]
    """Rows refused."""

    rows_per_second: Annotated[float, Field(ge=0)]
    """Its speed since it began."""

    alive: bool
    """Whether the store hears of it."""


class ProgressStatus(ApiModel):
    """How far a run under way is: what the store has recorded, as its namespace's gateway tells."""

    rows: Annotated[int, Field(ge=0)]
    """Rows recorded: they survive whatever happens now."""

    total_rows: Annotated[int, Field(ge=0)] | None = None
    """Rows in all, where that is known before the end."""

    rejects: Annotated[int, Field(ge=0)]
    """Rows refused."""

    rows_per_second: Annotated[float, Field(ge=0)]
    """Speed of all workers together since the first began."""

    estimated_completion: Annotated[str, Field(max_length=32)] | None = None
    """When all rows will be recorded at this speed, RFC 3339."""

    workers: Annotated[tuple[WorkerStatus, ...], Field(max_length=MAX_WORKERS_TOLD)] = ()
    """Each worker's share: the first 32 of them."""

    updated_at: Annotated[str, Field(max_length=32)]
    """When these figures last changed, RFC 3339."""


class RunStatus(ApiModel):
    """One run of a batch deployment."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the run: its first Job's."""

    job: Annotated[str, Field(max_length=253)] | None = None
    """Job that went on with it, or that rolled back to it, where that is another."""

    outcome: Literal["Running", "Succeeded", "Failed"]
    """How it went."""

    started_at: Annotated[str, Field(max_length=32)] | None = None
    """When it started, RFC 3339."""

    finished_at: Annotated[str, Field(max_length=32)] | None = None
    """When it ended, RFC 3339. Of a roll back: when answers came from it again."""

    workers: Annotated[str, Field(max_length=15)] | None = None
    """Workers at work and workers in all, such as 2/3, while it runs."""

    progress: ProgressStatus | None = None
    """How far it is, while it runs."""

    version: Annotated[str, Field(max_length=63)] | None = None
    """Model version it scored with."""

    rows: int | None = None
    """Rows published."""

    rejects: int | None = None
    """Rows refused."""

    message: Annotated[str, Field(max_length=4096)] | None = None
    """Why it failed, or what else there is to say of it."""


class BundleStatus(ApiModel):
    """What was built for one kind of device."""

    target: Annotated[str, Field(max_length=63)]
    """Name of the kind of device."""

    digest: Annotated[str, Field(max_length=71)]
    """sha256 of the bundle's manifest."""

    variant: Annotated[str, Field(max_length=63)]
    """Variant of the model that was measured best within the budget: fp32 or int8."""

    size_mi_b: Annotated[float, Field(ge=0, alias="sizeMiB")]
    """Size of the bundle."""

    memory_mi_b: Annotated[float, Field(ge=0, alias="memoryMiB")]
    """Peak memory measured."""

    latency_ms: Annotated[float, Field(ge=0)]
    """Median time of one prediction measured."""

    agreement: Annotated[float, Field(ge=0, le=1)]
    """Share of golden vectors answered like the original."""


class Status(ApiModel):
    """Observed state, written only by the operator."""

    observed_generation: int = 0
    """Generation of the spec this status tells of."""

    operator: Annotated[str, Field(max_length=317)] | None = None
    """Installation of the operator that manages it: NAMESPACE/RELEASE."""

    mode: Literal["batch", "realtime", "streaming", "edge"] | None = None
    """Mode the spec comes to."""

    mode_reason: Annotated[str, Field(max_length=1024)] | None = None
    """Why this mode."""

    model: ModelStatus | None = None
    """The model as resolved."""

    last_run: RunStatus | None = None
    """Latest run (batch)."""

    last_published: RunStatus | None = None
    """Run that answers come from: published last, or rolled back to (batch)."""

    next_run: Annotated[str, Field(max_length=32)] | None = None
    """When the next run is due (batch), RFC 3339."""

    bundles: Annotated[tuple[BundleStatus, ...], Field(max_length=16), keyed_by("target")] = ()
    """What devices are served (edge)."""

    address: Annotated[str, Field(max_length=512)] | None = None
    """Where the backend asks for predictions, or devices for bundles (edge), inside the
    cluster."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), keyed_by("type")] = ()
    """Ready, Progressing, Degraded, SpecValid, ModelResolved; Reconciling and Stalled while they
    are True."""


class ModelDeployment(ApiModel):
    """A trained model, the data it speaks and what its users need."""

    api_version: Literal["fourways.dev/v1alpha1"]
    kind: Literal["ModelDeployment"]
    metadata: Metadata
    spec: Spec
    status: Status | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME}",
            f"the name is longer than {MAX_NAME} characters",
            "shorten metadata.name: names of Jobs are made from it",
            ".metadata.name",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",
            "the name cannot name a Service",
            "use small letters, digits and -, beginning with a letter",
            ".metadata.name",
        ),
    )

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name


def worker_threads(resources: Resources) -> int:
    """Return how many onnxruntime threads a worker runs: its whole cores, one at least."""
    return max(1, int(cores(resources.cpu)))


def worker_memory(resources: Resources) -> int:
    """Return a worker's memory limit in bytes."""
    return bytes_of(resources.memory)


Json = dict[str, Any]
