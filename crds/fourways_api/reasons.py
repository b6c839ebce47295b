"""Every reason that conditions, events, runs and termination messages of Fourways give.

A reason is one CamelCase word for programs; the message beside it is for people. A reason is added
here and nowhere else: a member with its meaning and what to do about it. Classes of
``fourways_runtime.errors`` find their member by their own name, the rest of the code names the
member, and ``docs/reference/reasons.md`` is generated from this module::

    python -m fourways_api.reasons [--check]

A reason that comes from elsewhere (a worker's image of another version, KServe, KubeRay) may be
unknown here. :func:`known_or` passes it on where it has the form of a reason.
"""

from __future__ import annotations

import re
import sys
from enum import Enum, StrEnum
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs" / "reference" / "reasons.md"

MAX_REASON = 128
"""Characters: the limit of the CRD's conditions."""

_FORM = re.compile(rf"[A-Za-z][A-Za-z0-9]{{0,{MAX_REASON - 1}}}")

ALL = ("batch", "realtime", "streaming", "edge")
SERVED = ("realtime", "streaming")
RUNS = ("batch", "edge")
COMPARED = ("batch", "realtime", "streaming")


class ReasonKind(Enum):
    """What a reason means for the person who operates the deployment."""

    NORMAL = "normal"
    """All is well, or work goes on as it should."""

    BEGINNING = "beginning"
    """Not ready yet, as is usual for a new deployment. Nothing to do."""

    RECONCILING = "reconciling"
    """Not ready yet, or not everywhere, while the cluster is brought to what the spec says."""

    TRANSIENT = "transient"
    """Something failed that is retried and may recover by itself."""

    FAILURE = "failure"
    """Something failed; the message names what."""

    STALLED = "stalled"
    """The operator cannot go on until somebody changes the spec or the cluster."""


NORMAL, BEGINNING, RECONCILING, TRANSIENT, FAILURE, STALLED = ReasonKind

NOTHING = "Nothing."


class Reason(StrEnum):
    """A reason, with its meaning, what to do, and where it occurs."""

    meaning: str
    action: str
    kind: ReasonKind
    modes: tuple[str, ...]
    of_model: bool
    """Whether it says that the model cannot be used. ModelResolved gives it as its reason."""

    is_bystander: bool
    """Whether a worker ended because it was told to stop, mostly since another one failed."""

    def __new__(
        cls,
        value: str,
        kind: ReasonKind,
        modes: tuple[str, ...],
        meaning: str,
        action: str = NOTHING,
        of_model: bool = False,
        is_bystander: bool = False,
    ) -> Reason:
        """Make a member: its word, kind, modes, meaning and what to do."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.kind, member.modes, member.meaning, member.action = kind, modes, meaning, action
        member.of_model, member.is_bystander = of_model, is_bystander
        return member

    @classmethod
    def known(cls, text: str) -> Reason | None:
        """Return the member with this word; None where there is none."""
        return cls.__members__.get(text)

    @property
    def is_beginning(self) -> bool:
        """Whether it is usual for a deployment that has just been created or changed."""
        return self.kind in (BEGINNING, RECONCILING)

    @property
    def reconciles(self) -> bool:
        """Whether the cluster is being brought to what the spec says."""
        return self.kind in (RECONCILING, TRANSIENT)

    @property
    def stalls(self) -> bool:
        """Whether the operator cannot go on until somebody changes something."""
        return self.kind is STALLED

    # ------------------------------------------------------------ the spec and its plan

    Valid = "Valid", NORMAL, ALL, "The spec is valid."
    Invalid = (
        "Invalid",
        STALLED,
        ALL,
        "The spec is not valid, so nothing was changed in the cluster.",
        "Correct the fields that the message names; `fourways validate` shows the same problems.",
    )
    SpecInvalid = (
        "SpecInvalid",
        STALLED,
        ALL,
        "The spec is not valid; the objects of the last valid spec are kept unchanged.",
        "See the condition SpecValid.",
    )
    PlanFailed = (
        "PlanFailed",
        STALLED,
        ALL,
        "No objects could be planned from the spec. Other deployments are not affected.",
        "Correct the value that the message quotes, and report it: validation should reject it.",
    )
    StatusFailed = (
        "StatusFailed",
        FAILURE,
        ALL,
        "The state of the deployment could not be determined because of an error in the operator.",
        "Report it, with the operator's log.",
    )
    NameTaken = (
        "NameTaken",
        STALLED,
        ALL,
        "An object with a name that the deployment needs exists and is not managed by Fourways.",
        "Rename or delete that object, or rename the deployment.",
    )
    KindMissing = (
        "KindMissing",
        TRANSIENT,
        ALL,
        "The cluster does not have a kind of object that the plan needs.",
        "Install what provides it; the deployment continues by itself then.",
    )
    KServeMissing = (
        "KServeMissing",
        TRANSIENT,
        ("realtime",),
        "The cluster has no InferenceServices.",
        "Install KServe in Standard mode (docs/modes/realtime.md).",
    )
    KedaMissing = (
        "KedaMissing",
        TRANSIENT,
        ("realtime",),
        "The cluster has no ScaledObjects, by which KEDA adds replicas.",
        "Install KEDA, or remove realtime.targetConcurrency: the autoscaler then goes by CPU use.",
    )
    KubeRayMissing = (
        "KubeRayMissing",
        TRANSIENT,
        ("batch",),
        "The cluster has no RayJobs.",
        "Install KubeRay (docs/modes/batch.md), or set batch.engine to Jobs.",
    )
    ApplyFailed = (
        "ApplyFailed",
        FAILURE,
        ALL,
        "The API server rejected an object; the message quotes its response.",
        "Correct what the message names: a quota, a policy, an admission webhook, or RBAC.",
    )

    # ------------------------------------------------------------ as it should be

    AsExpected = "AsExpected", NORMAL, ALL, "No problem is known."
    Idle = "Idle", NORMAL, ALL, "No rollout, run or build is in progress."
    Resolved = "Resolved", NORMAL, ALL, "The digest of the model is known."
    Loaded = (
        "Loaded",
        NORMAL,
        SERVED,
        "The model is loaded and serves predictions; its digest is not known.",
    )
    NotFetchedYet = "NotFetchedYet", BEGINNING, ALL, "No worker has fetched the model yet."
    Published = "Published", NORMAL, RUNS, "Predictions or bundles are published and served."
    NoDrift = "NoDrift", NORMAL, COMPARED, "The scored records are distributed as in training."
    TooFewRecords = (
        "TooFewRecords",
        NORMAL,
        COMPARED,
        "Too few records were scored to compare them with the training.",
    )
    DriftDetected = (
        "DriftDetected",
        FAILURE,
        COMPARED,
        "Inputs or outputs are distributed otherwise than in training (`monitoring`).",
        "Look for the cause in `status.drift`: a broken source, a changed unit, or a real change. "
        "In the last case, train again and write a new profile.",
    )
    Answering = "Answering", NORMAL, SERVED, "At least one ready pod serves predictions."
    Asleep = (
        "Asleep",
        NORMAL,
        ("realtime",),
        "No replica runs, as no requests come; the next one starts a replica and waits for it.",
    )
    Waking = (
        "Waking",
        NORMAL,
        ("realtime",),
        "A replica is being started for requests that wait for it.",
    )
    RollingOut = "RollingOut", RECONCILING, SERVED, "Pods of a new version are being started."
    GatewayRolling = (
        "GatewayRolling",
        RECONCILING,
        ALL,
        "The gateway is being updated with the route.",
    )
    RunInProgress = "RunInProgress", NORMAL, ("batch",), "A run is in progress."
    RunProgress = "RunProgress", NORMAL, ("batch",), "A run has scored another quarter."
    RunPublished = "RunPublished", NORMAL, ("batch",), "Predictions come from this run now."
    BuildInProgress = "BuildInProgress", RECONCILING, ("edge",), "Bundles are being built."

    # ------------------------------------------------------------ not ready yet

    WaitingForGateway = (
        "WaitingForGateway",
        RECONCILING,
        ALL,
        "The namespace's gateway does not respond, or does not have the deployment's route yet.",
        "If this persists: `kubectl describe deployment fourways-gateway`.",
    )
    GatewayNotAnswering = (
        "GatewayNotAnswering",
        TRANSIENT,
        ("batch", "realtime", "streaming"),
        "The namespace's gateway says that it cannot answer for the deployment, though the "
        "deployment's own pods are ready, or a run is published.",
        "Look at what lies between them: NetworkPolicies, the gateway's address of the store, its "
        "log.",
    )
    GatewayFull = (
        "GatewayFull",
        STALLED,
        ALL,
        "The configuration of the namespace's gateway has no room for another route.",
        "Put the deployment into another namespace.",
    )
    WaitingForFirstRun = (
        "WaitingForFirstRun",
        BEGINNING,
        ("batch",),
        "No run was published yet.",
        "Wait for the schedule, or start a run: `fourways start-run NAME`.",
    )
    FirstRunInProgress = (
        "FirstRunInProgress",
        BEGINNING,
        ("batch",),
        "The first run is in progress; nothing is published before it succeeds.",
    )
    PredictionsMissing = (
        "PredictionsMissing",
        FAILURE,
        ("batch",),
        "A run was published once, and the prediction store has none now.",
        "Restore the store, or start a run: `fourways start-run NAME`.",
    )
    RunSuspended = (
        "RunSuspended",
        NORMAL,
        ("batch",),
        "The Job of a run is suspended.",
        "Wait for Kueue to admit it, or resume the Job if it was suspended by hand.",
    )
    WaitingForBuild = "WaitingForBuild", RECONCILING, ("edge",), "The build has not started yet."
    WaitingForKServe = (
        "WaitingForKServe",
        RECONCILING,
        ("realtime",),
        "KServe has not made the InferenceService available yet.",
    )
    Starting = "Starting", RECONCILING, SERVED, "Pods are being started."
    NotReady = (
        "NotReady",
        RECONCILING,
        ALL,
        "A pod runs and is not ready: it loads the model, or waits for a dependency.",
        "If this persists: read the pod's log.",
    )
    PodNotStarted = (
        "PodNotStarted",
        RECONCILING,
        SERVED,
        "A pod waits for a volume, a Secret or its image.",
        "If this persists: `kubectl describe pod` names the volume or image.",
    )

    # ------------------------------------------------------------ pods and controllers

    PodRefused = (
        "PodRefused",
        FAILURE,
        ALL,
        "The API server refuses to create pods: a quota, a LimitRange, a PriorityClass or an "
        "admission policy.",
        "Change the quota or policy that the message quotes, or the deployment's resources.",
    )
    Unschedulable = (
        "Unschedulable",
        TRANSIENT,
        ALL,
        "No node accepts a pod.",
        "Add capacity, or lower `spec.resources`.",
    )
    ImageUnavailable = (
        "ImageUnavailable",
        FAILURE,
        ALL,
        "An image cannot be pulled.",
        "Check that the image exists and that the pull secret allows it.",
    )
    CreateContainerConfigError = (
        "CreateContainerConfigError",
        FAILURE,
        ALL,
        "The kubelet cannot prepare a container (reason from Kubernetes).",
        "Create the object that the message names.",
    )
    CreateContainerError = (
        "CreateContainerError",
        FAILURE,
        ALL,
        "The container runtime cannot create a container (reason from Kubernetes).",
        "See `kubectl describe pod`.",
    )
    RunContainerError = (
        "RunContainerError",
        FAILURE,
        ALL,
        "The container runtime cannot start a container (reason from Kubernetes).",
        "Check the image's entry point; see `kubectl describe pod`.",
    )
    OOMKilled = (
        "OOMKilled",
        FAILURE,
        ALL,
        "A worker exceeded its memory limit (reason from Kubernetes).",
        "Raise `spec.resources.memory`.",
    )
    WorkerEnded = (
        "WorkerEnded",
        FAILURE,
        ALL,
        "A worker exits repeatedly without a termination message.",
        "Read the pod's log.",
    )
    WorkerFailed = (
        "WorkerFailed",
        FAILURE,
        ALL,
        "A worker exited with an error and without a termination message.",
        "Read the pod's log.",
    )
    KServeSilent = (
        "KServeSilent",
        FAILURE,
        ("realtime",),
        "No KServe controller has handled the InferenceService.",
        "Check that KServe's controller is running.",
    )
    KServeFailed = (
        "KServeFailed",
        FAILURE,
        ("realtime",),
        "KServe reports that the predictor failed.",
        "Correct what KServe's message names.",
    )
    KubeRaySilent = (
        "KubeRaySilent",
        FAILURE,
        ("batch",),
        "No KubeRay operator has handled the RayJob.",
        "Check that the KubeRay operator is running.",
    )
    RayJobFailed = (
        "RayJobFailed",
        FAILURE,
        ("batch",),
        "KubeRay reports that the RayJob failed.",
        "Correct what KubeRay's message names.",
    )
    JobFailed = "JobFailed", FAILURE, RUNS, "A Job failed without a known cause.", "See its events."
    RunFailed = (
        "RunFailed",
        FAILURE,
        ("batch",),
        "A run failed with the same reason as the run before.",
        "See the condition Degraded and `fourways list-runs NAME`.",
    )
    DeadlineExceeded = (
        "DeadlineExceeded",
        FAILURE,
        RUNS,
        "A run took longer than `activeDeadlineSeconds` (reason from Kubernetes).",
        "Raise the limit, or add workers.",
    )
    BackoffLimitExceeded = (
        "BackoffLimitExceeded",
        FAILURE,
        RUNS,
        "A run failed more often than `backoffLimit` allows (reason from Kubernetes).",
        "Read the log of its pods.",
    )
    FailedIndexes = (
        "FailedIndexes",
        FAILURE,
        ("batch",),
        "Every worker of a run failed more often than `backoffLimit` allows (reason from "
        "Kubernetes).",
        "Read the log of its pods.",
    )
    ScheduleOverdue = (
        "ScheduleOverdue",
        FAILURE,
        ("batch",),
        "A scheduled run did not start.",
        "See the events of the CronJob; a controller manager that is down or an earlier run that "
        "is still in progress is the usual cause.",
    )

    # ------------------------------------------------------------ exits of workers
    # One member for each class of fourways_runtime.errors, found by the class's name.

    ConfigError = (
        "ConfigError",
        STALLED,
        ALL,
        "A worker cannot use its configuration, a Secret or an environment variable.",
        "Correct the field or Secret that the message names.",
    )
    FeaturesMismatch = (
        "FeaturesMismatch",
        STALLED,
        ("realtime", "edge"),
        "The feature table or query does not have the columns that the inputs need.",
        "Correct `features`, or the table.",
    )
    ModelError = (
        "ModelError",
        STALLED,
        ALL,
        "The model cannot be used.",
        "Correct `spec.model` as the message says.",
    )
    DigestMismatch = (
        "DigestMismatch",
        STALLED,
        ALL,
        "The model that was fetched does not have the digest that the spec names.",
        "Set `spec.model.digest` to the digest of the model you mean, or restore the model.",
        True,
    )
    ModelNotLoadable = (
        "ModelNotLoadable",
        STALLED,
        ALL,
        "The file is not a model of the format named, or one that is refused for safety.",
        "Export the model again; check `spec.model.format`.",
        True,
    )
    ContractMismatch = (
        "ContractMismatch",
        STALLED,
        ALL,
        "The inputs or outputs of the model do not match the contract.",
        "Correct `spec.contract`, or export the model with these inputs and outputs.",
        True,
    )
    GoldenMismatch = (
        "GoldenMismatch",
        STALLED,
        ALL,
        "The model does not give the expected answers to its golden vectors.",
        "Check that model and golden vectors belong together.",
        True,
    )
    ProfileInvalid = (
        "ProfileInvalid",
        STALLED,
        COMPARED,
        "The training profile cannot be read, or is not one of the contract.",
        "Make it again with `fourways init --sample`, or correct `monitoring.profile`.",
    )
    SourceError = (
        "SourceError",
        FAILURE,
        ALL,
        "The source or a file is missing, unreadable, or does not have the contract's columns.",
        "Correct the source or the URI, or `spec.contract`.",
    )
    QueryRefused = (
        "QueryRefused",
        FAILURE,
        ("batch",),
        "The source's SQL is not a single statement that only reads.",
        "Write a single `SELECT` in `spec.batch.source.query.sql`.",
    )
    TopicNotFound = (
        "TopicNotFound",
        TRANSIENT,
        ("streaming",),
        "The broker does not have the topic or stream.",
        "Create it, or correct its name in `streaming.source`.",
    )
    RetentionLosesEvents = (
        "RetentionLosesEvents",
        STALLED,
        ("streaming",),
        "The broker's stream deletes events as soon as they are delivered, before they are scored.",
        "Set the stream's retention to limits; a work queue has to be created again.",
    )
    EventsExpired = (
        "EventsExpired",
        FAILURE,
        ("streaming",),
        "The broker's retention deleted events before they were scored, in the last ten minutes.",
        "Add consumers (`streaming.minReplicas`), or lengthen the retention. The events are lost.",
    )
    StreamLags = (
        "StreamLags",
        FAILURE,
        ("streaming",),
        "An event has waited for its prediction for longer than `streaming.maxLag`.",
        "Add consumers (`streaming.minReplicas`), or remove what delays them.",
    )
    EventTooLarge = (
        "EventTooLarge",
        FAILURE,
        ("streaming",),
        "An event is larger than its broker accepts.",
        "Send less in one event, or raise the broker's limit.",
    )
    NotPublishable = (
        "NotPublishable",
        FAILURE,
        ("batch",),
        "The results of a run may not be published; those of the previous run stay published.",
        "See the message.",
    )
    TooManyRejects = (
        "TooManyRejects",
        FAILURE,
        ("batch",),
        "More rows were rejected than `maxRejects` allows.",
        "`fourways rejects NAME` shows the rows; correct them, or raise `maxRejects`.",
    )
    CheckFailed = (
        "CheckFailed",
        FAILURE,
        ("batch",),
        "The predictions of a run do not pass a check of `batch.checks`.",
        "`fourways compare-runs` shows what changed; adjust the check if the change is intended.",
    )
    FetchRefused = (
        "FetchRefused",
        STALLED,
        ALL,
        "The fetch policy forbids the URI, or the file is larger than allowed.",
        "Use an allowed host and scheme, or raise `spec.model.maxSizeMiB`.",
        True,
    )
    SecretRefused = (
        "SecretRefused",
        STALLED,
        ALL,
        "A Secret does not list this deployment, or the host that it would be sent to.",
        "The Secret's owner adds the name to its key `fourways.dev-deployments` or "
        "`fourways.dev-hosts`; `fourways secret create` writes both.",
        True,
    )
    BudgetExceeded = (
        "BudgetExceeded",
        STALLED,
        ("edge",),
        "No variant of the model fits the device's budget.",
        "Raise `edge.targets[].budget`, or make the model smaller.",
    )
    Unavailable = (
        "Unavailable",
        TRANSIENT,
        ALL,
        "A dependency is not available; the worker retries.",
        "If this persists: restore the dependency that the message names.",
    )
    FetchFailed = (
        "FetchFailed",
        TRANSIENT,
        ALL,
        "A download failed, timed out, or was answered with an error.",
        "Check the URI and its credentials.",
        True,
    )
    StoreUnavailable = (
        "StoreUnavailable",
        TRANSIENT,
        ALL,
        "The prediction store cannot be reached, or refuses the login.",
        "Check PostgreSQL and the store's Secret.",
    )
    StoreReadOnly = (
        "StoreReadOnly",
        TRANSIENT,
        ALL,
        "The prediction store is read-only, or this login may not write to it.",
        "Grant the login the right to write, or name the primary server in the store's Secret.",
    )
    StoreFull = (
        "StoreFull",
        TRANSIENT,
        ALL,
        "The prediction store has no space left.",
        "Free or add disk space.",
    )
    SinkUnavailable = (
        "SinkUnavailable",
        TRANSIENT,
        ("batch",),
        "The sink cannot be reached, or refuses the login.",
        "Check the sink and its Secret.",
    )
    BrokerUnavailable = (
        "BrokerUnavailable",
        TRANSIENT,
        ("streaming",),
        "The broker cannot be reached, or refuses the login.",
        "Check the broker and its Secret.",
    )
    FeaturesUnavailable = (
        "FeaturesUnavailable",
        TRANSIENT,
        ("realtime", "edge"),
        "The feature database cannot be reached, or refuses the login.",
        "Check the database and its Secret.",
    )
    CertificateInvalid = (
        "CertificateInvalid",
        TRANSIENT,
        ("realtime",),
        "Gateways do not accept the certificate of a model server: it is missing, has expired, or "
        "is for another name or of another authority.",
        "Renew the certificate in the Secret that the message names; servers read it again.",
    )
    ModelHangs = (
        "ModelHangs",
        TRANSIENT,
        ALL,
        "The model did not return in time.",
        "Correct the model: the message names the stage and the record.",
    )
    PublishFailed = (
        "PublishFailed",
        TRANSIENT,
        ("edge",),
        "A bundle could not be written to where it is published.",
        "Check `edge.publish` and its credentials.",
    )
    Terminated = (
        "Terminated",
        TRANSIENT,
        ALL,
        "A worker was told to stop before it finished. Nothing was published.",
        NOTHING,
        False,
        True,
    )
    InternalError = (
        "InternalError",
        FAILURE,
        ALL,
        "An unexpected error; the log has the details.",
        "Report it, with the log.",
    )


def known_or(text: object, default: Reason) -> str:
    """Return a reason that comes from elsewhere where it has the form of one, else ``default``.

    A member of :class:`Reason` is returned as that.
    """
    if not isinstance(text, str) or not _FORM.fullmatch(text):
        return default
    return Reason.__members__.get(text, text)


# ---------------------------------------------------------------- the table in the docs

_HEAD = """\
# Reasons

Conditions, events, runs and termination messages give one of these reasons. Generated from
`crds/fourways_api/reasons.py`: `make update` writes it.

| reason | mode | meaning | what to do |
|---|---|---|---|
"""


def render() -> str:
    """Return the table of all reasons."""
    rows = (
        f"| `{r}` | {'all' if r.modes == ALL else ', '.join(r.modes)} | {r.meaning} | {r.action} |"
        for r in sorted(Reason, key=lambda r: r.lower())
    )
    return _HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Write the table; with --check say whether it is current."""
    text = render()
    if "--check" in sys.argv[1:]:
        if FILE.exists() and FILE.read_text() == text:
            return 0
        print(f"{FILE} is out of date: run make update", file=sys.stderr)
        return 1
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
