"""The status of a ModelDeployment: what the operator observed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import ApiModel
from .schema_hints import keyed_by
from .strategy import Mode

MAX_CONDITION_MESSAGE = 4096


class Condition(ApiModel):
    """One aspect of the deployment's state, in the form of Kubernetes conditions."""

    type: Annotated[str, Field(max_length=63)]
    """Type of the condition."""

    status: Literal["True", "False", "Unknown"]
    """Status of the condition."""

    observed_generation: int = 0
    """Generation of the spec that the condition describes."""

    last_transition_time: Annotated[str, Field(max_length=32)]
    """Time at which the status of the condition last changed, RFC 3339."""

    reason: Annotated[str, Field(max_length=128)]
    """Reason for the status, in one word for programs (docs/reference/reasons.md)."""

    message: Annotated[str, Field(max_length=MAX_CONDITION_MESSAGE)]
    """Details for people."""


class ModelStatus(ApiModel):
    """The model that was resolved."""

    version: Annotated[str, Field(max_length=63)] | None = None
    """Version of the model that serves predictions."""

    digest: Annotated[str, Field(max_length=71)] | None = None
    """sha256 digest of the model, from the spec or pinned at the first download."""

    uri: Annotated[str, Field(max_length=2048)] | None = None
    """URI for which the digest was pinned."""


MAX_WORKERS_REPORTED = 32


class WorkerStatus(ApiModel):
    """Progress of one worker."""

    name: Annotated[str, Field(max_length=253)]
    """The worker's host, and its index where there are several. One tried again is another."""

    rows: Annotated[int, Field(ge=0)]
    """Number of rows recorded."""

    rejects: Annotated[int, Field(ge=0)]
    """Number of rows rejected."""

    rows_per_second: Annotated[float, Field(ge=0)]
    """Average speed since the worker started."""

    alive: bool
    """Whether the worker still reports to the store."""


class ProgressStatus(ApiModel):
    """Progress of a run: what the store has recorded, as reported by the namespace's gateway."""

    rows: Annotated[int, Field(ge=0)]
    """Number of rows recorded in the store. They are kept if the run is interrupted."""

    total_rows: Annotated[int, Field(ge=0)] | None = None
    """Total number of rows, if known before the end."""

    rejects: Annotated[int, Field(ge=0)]
    """Number of rows rejected."""

    rows_per_second: Annotated[float, Field(ge=0)]
    """Average speed of all workers since the first one started."""

    estimated_completion: Annotated[str, Field(max_length=32)] | None = None
    """Estimated time at which all rows are recorded, RFC 3339."""

    workers: Annotated[tuple[WorkerStatus, ...], Field(max_length=MAX_WORKERS_REPORTED)] = ()
    """Progress of each worker; the first 32 workers only."""

    updated_at: Annotated[str, Field(max_length=32)]
    """Time at which these figures last changed, RFC 3339."""


class RunStatus(ApiModel):
    """One run of a batch deployment."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the run, which is the name of its first Job."""

    job: Annotated[str, Field(max_length=253)] | None = None
    """Job that resumed the run or rolled back to it, if that is another Job."""

    outcome: Literal["Running", "Succeeded", "Failed"]
    """Outcome of the run."""

    started_at: Annotated[str, Field(max_length=32)] | None = None
    """Start time, RFC 3339."""

    finished_at: Annotated[str, Field(max_length=32)] | None = None
    """End time, RFC 3339. After a rollback: when the run became current again."""

    workers: Annotated[str, Field(max_length=15)] | None = None
    """Active and total number of workers, such as 2/3, while the run is in progress."""

    progress: ProgressStatus | None = None
    """Progress of the run, while it is in progress."""

    version: Annotated[str, Field(max_length=63)] | None = None
    """Version of the model that scored the rows."""

    rows: int | None = None
    """Number of rows published."""

    rejects: int | None = None
    """Number of rows rejected."""

    message: Annotated[str, Field(max_length=4096)] | None = None
    """Why the run failed, or other details."""


MAX_DRIFTS_REPORTED = 5


class FieldDrift(ApiModel):
    """How the values of one input or output differ from the training profile."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the input or output."""

    side: Literal["input", "output"]
    """Whether it is an input or an output."""

    psi: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Population stability index."""

    ks: Annotated[float, Field(ge=0, le=1)] | None = None
    """Kolmogorov-Smirnov distance over the profile's bins, for numbers."""

    missing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of missing values."""

    drifted: bool
    """Whether psi is above maxDrift, and more than so few records show by chance."""


class DriftStatus(ApiModel):
    """How the scored records differ from the training profile."""

    fields: Annotated[tuple[FieldDrift, ...], Field(max_length=MAX_DRIFTS_REPORTED)] = ()
    """The inputs and outputs that differ most; drifted ones first. At most five."""

    drifted: Annotated[int, Field(ge=0)] = 0
    """Number of inputs and outputs that drifted."""

    records: Annotated[int, Field(ge=0, lt=1 << 53)]
    """Number of records compared: a sample, if there are many."""

    rejects: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the records that were rejected."""

    measured_at: Annotated[str, Field(max_length=32)]
    """Time of the comparison, RFC 3339."""


class QualityMetric(ApiModel):
    """One metric of predictions against labels."""

    name: Annotated[str, Field(max_length=32)]
    """Name of the metric."""

    value: Annotated[float, Field(allow_inf_nan=False)]
    """Its value."""


class QualityStatus(ApiModel):
    """How well the predictions of a run or of a window agree with the labels known so far."""

    run: Annotated[str, Field(max_length=253)] | None = None
    """Name of the run (batch)."""

    since: Annotated[str, Field(max_length=32)] | None = None
    """Time since which predictions are compared, RFC 3339 (streaming, realtime): the beginning of
    the window, or later if there are too many predictions."""

    output: Annotated[str, Field(max_length=63)]
    """The output that was compared."""

    labels: Annotated[int, Field(ge=0, lt=1 << 53)]
    """Number of labels that have a prediction."""

    metrics: Annotated[tuple[QualityMetric, ...], Field(max_length=6), keyed_by("name")] = ()
    """The metrics. One that is not defined is left out, such as AUC if all labels are alike."""

    message: Annotated[str, Field(max_length=512)] | None = None
    """What was left out, or why the metrics are not known, or not of now (streaming,
    realtime)."""

    measured_at: Annotated[str, Field(max_length=32)]
    """Time of the comparison, RFC 3339."""


class BundleStatus(ApiModel):
    """Bundle built for one kind of device."""

    target: Annotated[str, Field(max_length=63)]
    """Name of the kind of device."""

    digest: Annotated[str, Field(max_length=71)]
    """sha256 of the bundle's manifest."""

    variant: Annotated[str, Field(max_length=63)]
    """Variant of the model that performed best within the budget: fp32 or int8."""

    size_mi_b: Annotated[float, Field(ge=0, alias="sizeMiB")]
    """Size of the bundle."""

    memory_mi_b: Annotated[float, Field(ge=0, alias="memoryMiB")]
    """Measured peak memory."""

    latency_ms: Annotated[float, Field(ge=0)]
    """Measured median time of one prediction."""

    agreement: Annotated[float, Field(ge=0, le=1)]
    """Share of golden vectors for which the variant agrees with the original model."""


class ColdStartStatus(ApiModel):
    """The last time that a request had to wait for a replica."""

    seconds: Annotated[float, Field(ge=0)]
    """Time from the request until a replica was ready."""

    at: Annotated[str, Field(max_length=32)]
    """Time at which the replica was ready, RFC 3339."""


class Status(ApiModel):
    """Observed state, written by the operator."""

    observed_generation: int = 0
    """Generation of the spec that this status describes."""

    operator: Annotated[str, Field(max_length=317)] | None = None
    """Installation of the operator that manages it: NAMESPACE/RELEASE."""

    mode: Mode | None = None
    """Mode that the spec selects."""

    mode_reason: Annotated[str, Field(max_length=1024)] | None = None
    """Why this mode was selected."""

    model: ModelStatus | None = None
    """The model that was resolved."""

    last_run: RunStatus | None = None
    """Latest run (mode batch)."""

    last_published: RunStatus | None = None
    """Run that serves predictions: the latest published run, or the run rolled back to (mode
    batch)."""

    next_run: Annotated[str, Field(max_length=32)] | None = None
    """Time of the next scheduled run (mode batch), RFC 3339. Kubernetes skips a time that a change
    of clocks leaves out, and runs twice at a time that occurs twice."""

    drift: DriftStatus | None = None
    """How the scored records differ from the training profile (spec.monitoring): those of the last
    run that compared them, or of the present window, in the worker where they differ most."""

    quality: QualityStatus | None = None
    """How well predictions agree with labels (spec.quality): those of the latest run with at least
    30 labels, or those of the window (mode streaming)."""

    bundles: Annotated[tuple[BundleStatus, ...], Field(max_length=16), keyed_by("target")] = ()
    """Bundles that are served to devices (mode edge)."""

    cold_start: ColdStartStatus | None = None
    """The last time that a request had to wait for a replica (mode realtime, with minReplicas
    0)."""

    address: Annotated[str, Field(max_length=512)] | None = None
    """URL inside the cluster that serves predictions to backends, or bundles to devices (mode
    edge)."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), keyed_by("type")] = ()
    """Ready, Progressing, Degraded, SpecValid, ModelResolved; Drifted with spec.monitoring;
    Reconciling and Stalled while they are True."""
