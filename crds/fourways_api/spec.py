"""The spec of a ModelDeployment, its rules, and the mode it comes to."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from .addresses import Image
from .base import ApiModel, Rule
from .contract import Contract
from .model import ModelReference
from .modes import Batch, Edge, Realtime, Streaming
from .monitoring import Monitoring
from .pod import Pod
from .quality import Quality
from .requirements import Requirements
from .strategy import TREE_IN_CEL, Choice, Contradiction, Mode, choose
from .values import CpuQuantity, MemoryQuantity, ResourceName, bytes_of, cores

ModeName = Literal["auto", Mode]


class Resources(ApiModel):
    """CPU and memory of one worker. Request and limit are the same, so they are guaranteed."""

    cpu: CpuQuantity = "1"
    """Number of cores, such as 2 or 500m. The model runs with one thread per whole core."""

    memory: MemoryQuantity = "1Gi"
    """Memory limit, such as 512Mi or 1.5Gi. A worker that exceeds it is killed."""

    gpus: Annotated[int, Field(ge=1, le=64)] | None = None
    """Number of GPUs. The runtime's own image uses none: it is for images of your own."""

    gpu_resource: ResourceName | None = None
    """Name under which the nodes offer GPUs, such as amd.com/gpu. Without it: nvidia.com/gpu."""


_OTHER_SECRETS_OF_A_BUILD = {
    "model.credentials": "!has(self.model.credentials)",
    "contract.goldenVectors.credentials": "!has(self.contract.goldenVectors)"
    " || !has(self.contract.goldenVectors.credentials)",
    "contract.labels.credentials": "!has(self.contract.labels)"
    " || !has(self.contract.labels.credentials)",
    "contract.tokenizer.credentials": "!has(self.contract.tokenizer)"
    " || !has(self.contract.tokenizer.credentials)",
    "monitoring.profile.credentials": "!has(self.monitoring)"
    " || !has(self.monitoring.profile.credentials)",
    "edge.credentials": "!has(self.edge.credentials)",
    "edge.features.database": "!has(self.edge.features)",
}
"""Where an edge deployment names Secrets besides the signing key's: the place, and a rule that none
is there."""


_FOR_RUNTIMES = (
    (
        "!has(self.model.digest)",
        "nothing verifies a digest",
        "remove digest, and set digestPolicy to TrustOnFirstUse",
        ".model.digest",
    ),
    (
        "!has(self.model.credentials)",
        "it does not get credentials of ours",
        "remove credentials, and use workload identity (spec.pod.serviceAccountAnnotations)",
        ".model.credentials",
    ),
    (
        "!has(self.model.imagePath)",
        "model.imagePath is not used",
        "remove model.imagePath",
        ".model.imagePath",
    ),
    (
        "self.model.format == 'onnx'",
        "model.format is not used",
        "remove model.format, and name the format in runtime.modelFormat",
        ".model.format",
    ),
    (
        "!has(self.contract.goldenVectors)",
        "it is not tested with golden vectors",
        "remove contract.goldenVectors",
        ".contract.goldenVectors",
    ),
    (
        "!has(self.monitoring)",
        "its records are not compared with a training profile",
        "remove monitoring",
        ".monitoring",
    ),
    (
        "!has(self.quality)",
        "its predictions are not compared with labels",
        "remove quality",
        ".quality",
    ),
    (
        "['pvc', 'http', 'https', 's3', 'gs', 'oci'].exists(s, self.model.uri.startsWith(s + '://'))",
        "KServe does not fetch this scheme",
        "use a pvc, https, s3, gs or oci URI",
        ".model.uri",
    ),
)
"""What a spec with a runtime of KServe must not set: the rule, fault, fix and place."""


class Spec(ApiModel):
    """Desired state."""

    mode: ModeName = "auto"
    """How the model serves predictions. auto chooses a mode by requirements. The block of the same
    name holds the mode's settings; blocks of other modes are kept but not used."""

    requirements: Requirements | None = None
    """What the users of the model need. Mode auto chooses by these requirements."""

    model: ModelReference
    """The model file and how to verify it."""

    contract: Contract
    """Inputs and outputs of the model, and the key that identifies an entity."""

    batch: Batch | None = None
    """Settings of mode batch."""

    realtime: Realtime | None = None
    """Settings of mode realtime."""

    streaming: Streaming | None = None
    """Settings of mode streaming."""

    edge: Edge | None = None
    """Settings of mode edge."""

    monitoring: Monitoring | None = None
    """Comparison of the records that are scored with those of the training. Not for runtimes of
    KServe."""

    quality: Quality | None = None
    """Comparison of stored predictions with labels that become known later. For the modes batch,
    with predictions in the store, streaming, and realtime, whose answers are then stored too. Not
    for mode edge, and not for runtimes of KServe."""

    resources: Resources = Resources()
    """CPU and memory of each worker."""

    pod: Pod | None = None
    """Settings of the pods, in every mode: nodes, priority, labels, image pull Secrets."""

    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """What happens to predictions, runs, rejects and dead letters in the prediction store when the
    deployment is deleted. They are never served again, not even to a new deployment of the same
    name. Retain keeps them until fourways purge removes them; Delete removes them with a Job."""

    image: Image | None = None
    """Image of the workers, for models of format python only. It must match one of the patterns in
    the chart's images.allowed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *(
            Rule(
                f"self.mode != '{mode}' || has(self.{mode})",
                f"mode {mode} requires the block spec.{mode}",
                f"add the block {mode}",
                f".{mode}",
                "FieldValueRequired",
            )
            for mode in get_args(Mode)
        ),
        Rule(
            "self.mode != 'auto' || has(self.requirements)",
            "mode auto requires spec.requirements",
            "add requirements, or name a mode",
            ".requirements",
            "FieldValueRequired",
        ),
        *(
            Rule(
                f"self.mode != 'auto' || !has(self.requirements) || !({leads_there})"
                f" || has(self.{mode})",
                f"the requirements select mode {mode}, which requires the block spec.{mode}",
                f"add the block {mode}, or change requirements (fourways explain shows why)",
                f".{mode}",
                "FieldValueRequired",
            )
            for mode, leads_there in TREE_IN_CEL.items()
        ),
        Rule(
            "self.mode != 'edge' || !has(self.edge) || has(self.contract.goldenVectors)",
            "mode edge requires golden vectors, with which devices verify a model",
            "set contract.goldenVectors",
            ".contract.goldenVectors",
            "FieldValueRequired",
        ),
        Rule(
            "!has(self.quality) || self.mode != 'edge' && (self.mode != 'auto'"
            f" || !has(self.requirements) || !({TREE_IN_CEL['edge']}))",
            "predictions of devices are not compared with labels",
            "remove quality",
            ".quality",
        ),
        Rule(
            "!has(self.quality) || !has(self.quality.topic) || self.mode == 'streaming'"
            " || self.mode == 'auto' && has(self.requirements)"
            f" && ({TREE_IN_CEL['streaming']})",
            "only streams read labels from a topic",
            "set quality.truth instead",
            ".quality.topic",
        ),
        Rule(
            "!has(self.quality) || !has(self.batch) || !has(self.batch.sink)",
            "predictions in a sink are not compared with labels",
            "remove quality, or batch.sink",
            ".quality",
        ),
        Rule(
            "!has(self.quality) || self.contract.outputs.exists(o,"
            " o.name == self.quality.output && (!has(o.shape) || o.shape.size() == 0))",
            "quality.output is no output of the contract with a single value",
            "use a name from spec.contract.outputs",
            ".quality.output",
        ),
        Rule(
            "!has(self.quality) || self.quality.metrics.all(m, m == 'Accuracy')"
            " || !self.contract.outputs.exists(o,"
            " o.name == self.quality.output && o.type == 'string')",
            "texts have no metric but Accuracy",
            "set metrics to [Accuracy], or compare an output of numbers",
            ".quality.metrics",
        ),
        Rule(
            "!has(self.quality) || self.contract.entityKey.name != self.quality.label"
            " && self.contract.entityKey.name != self.quality.time",
            "a column of quality is the entity key",
            "name the columns of label and time",
            ".quality",
        ),
        Rule(
            "self.mode != 'edge' || !has(self.edge) || self.model.format in ['onnx', 'litert']",
            "devices run ONNX and LiteRT models only",
            "export the model to ONNX",
            ".model.format",
        ),
        Rule(
            "!has(self.edge) || self.model.format != 'litert'"
            " || self.edge.targets.all(t, !has(t.variant))",
            "a LiteRT model is published as it is, without variants",
            "remove variant, and quantise the model when you convert it",
            ".edge.targets",
        ),
        *(
            Rule(
                f"!has(self.edge) || {absent} || self.{place}.secretName"
                " != self.edge.signing.secretName",
                "the Secret with the signing key is used for something else as well",
                "sign with a Secret of its own, so that the key is mounted nowhere else",
                f".{place}.secretName",
            )
            for place, absent in _OTHER_SECRETS_OF_A_BUILD.items()
        ),
        Rule(
            "!self.contract.outputs.exists(f, has(f.shape) && f.shape.exists(size, size < 0))"
            " || self.mode == 'edge' || self.mode == 'realtime'"
            " && (!has(self.realtime) || !has(self.realtime.fallback)"
            " || self.realtime.fallback == 'none')",
            "an output has a dimension of any size, which the columns of a store do not have",
            "set mode to realtime, without a fallback, or to edge; or reduce the output to one size"
            " inside the model",
            ".contract.outputs",
        ),
        Rule(
            "has(self.image) || self.model.format != 'python'",
            "a model of format python requires an image that holds its code",
            "set image",
            ".image",
            "FieldValueRequired",
        ),
        Rule(
            "!has(self.image) || self.model.format == 'python'",
            "only a model of format python has an image of its own",
            "remove image: the Fourways runtime runs this format",
            ".image",
        ),
        Rule(
            "has(self.image) || has(self.realtime) && has(self.realtime.runtime)"
            " || !has(self.pod) || !has(self.pod.env) || self.pod.env.size() == 0",
            "the Fourways runtime takes no environment variables: its settings are fields",
            "remove env, or set image to an image of your own, or realtime.runtime",
            ".pod.env",
        ),
        *(
            Rule(
                f"!has(self.realtime) || !has(self.realtime.runtime) || {allowed}",
                f"a runtime of KServe fetches the model itself: {fault}",
                fix,
                place,
            )
            for allowed, fault, fix, place in _FOR_RUNTIMES
        ),
        *(
            Rule(
                f"!has(self.{mode}) || !has(self.{mode}.features) ||"
                f" self.{mode}.features.{part}.all(i,"
                f" self.contract.inputs.exists(f, f.name == {name}))",
                "features lists a name that is not an input of the contract",
                "use names from spec.contract.inputs",
                f".{mode}.features.{part}",
            )
            for mode in ("realtime", "edge")
            for part, name in (("inputs", "i"), ("defaults", "i.name"))
        ),
        *(
            Rule(
                f"!has(self.{mode}) || !has(self.{mode}.features) ||"
                f" self.{mode}.features.inputs.size() > 0 ||"
                " !self.contract.inputs.exists(f, has(f.columns))",
                "features looks up no blocks of columns",
                "list the inputs to look up in features.inputs",
                f".{mode}.features.inputs",
            )
            for mode in ("realtime", "edge")
        ),
    )

    def choice(self) -> Choice:
        """Return the mode this spec selects, with the reason.

        Raises:
            Contradiction: the requirements exclude each other, or the settings of the mode they
                lead to are missing.

        """
        if self.mode != "auto":
            return Choice(self.mode, "spec.mode selects it", ())
        choice = choose(self.requirements or Requirements())
        if getattr(self, choice.mode) is None:
            raise Contradiction(
                f"auto chose {choice.mode} because {choice.reason}, but spec.{choice.mode} is "
                f"missing: add the block {choice.mode}, or change requirements"
            )
        return choice


def worker_threads(resources: Resources) -> int:
    """Return how many onnxruntime threads a worker runs: one per whole core, at least one."""
    return max(1, int(cores(resources.cpu)))


def worker_memory(resources: Resources) -> int:
    """Return a worker's memory limit in bytes."""
    return bytes_of(resources.memory)
