"""The pods of a deployment, whatever its mode: where they run, labels, environment, credentials.

The operator derives everything else of a pod. There is no raw template: a field here is one that
gives its author nothing of the namespace's owner. Labels and annotations are among them because the
admin lists the keys that authors may set.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import ApiModel, Rule, no_two_share
from .schema_hints import keyed_by
from .values import LabelKey, LabelValue, ObjectName, Text


class Toleration(ApiModel):
    """A taint of nodes that the pods tolerate."""

    key: LabelKey | None = None
    """Key of the taint. With operator Exists, none stands for all taints."""

    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the value of the taint must be equal, or the key is enough."""

    value: LabelValue | None = None
    """Value of the taint."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; none stands for all effects."""

    toleration_seconds: Annotated[int, Field(ge=0, le=604_800)] | None = None
    """With effect NoExecute: for how long the pods stay."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.operator) || self.operator == 'Equal' || !has(self.value)",
            "operator Exists compares no value",
            "remove value, or set operator to Equal",
            ".value",
        ),
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without a key needs operator Exists",
            "set key, or operator to Exists",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds holds for effect NoExecute only",
            "set effect to NoExecute, or remove tolerationSeconds",
            ".tolerationSeconds",
        ),
    )


class NodeRequirement(ApiModel):
    """What the labels of a node must say."""

    key: LabelKey
    """Key of the label."""

    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value is compared with values."""

    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = ()
    """Values of the label, with In and NotIn."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            "In and NotIn compare with values, Exists and DoesNotExist with none",
            "set values, or change operator",
            ".values",
        ),
    )


class TopologySpread(ApiModel):
    """How evenly the pods are spread over zones or nodes."""

    topology_key: LabelKey
    """Label of nodes whose values are the places, such as topology.kubernetes.io/zone."""

    max_skew: Annotated[int, Field(ge=1, le=1000)] = 1
    """Maximum difference of the numbers of pods of two places."""

    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"
    """Whether a pod that would exceed it waits."""


class Variable(ApiModel):
    """An environment variable."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    """Name of the variable."""

    value: Text = ""
    """Its value, as it is: nothing in it is expanded. Credentials belong in a Secret."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.name.startsWith('FOURWAYS_')",
            "variables that begin with FOURWAYS_ are the operator's own",
            "rename the variable",
            ".name",
        ),
    )


Annotations = Annotated[dict[LabelKey, Text], Field(max_length=32)]


class Pod(ApiModel):
    """Where the pods of the deployment run, and what they carry. It holds for every mode."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict
    )
    """Labels that a node must have."""

    node_affinity: Annotated[tuple[NodeRequirement, ...], Field(max_length=16)] = ()
    """What the labels of a node must say, where nodeSelector cannot express it. All must hold."""

    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints of nodes that the pods tolerate."""

    topology_spread: Annotated[
        tuple[TopologySpread, ...], Field(max_length=4), keyed_by("topologyKey")
    ] = ()
    """How evenly the pods are spread over zones or nodes."""

    priority_class_name: ObjectName | None = None
    """Name of the PriorityClass of the pods. batch.priorityClassName takes precedence for runs."""

    runtime_class_name: ObjectName | None = None
    """Name of the RuntimeClass of the pods, such as that of a sandbox."""

    image_pull_secrets: Annotated[tuple[ObjectName, ...], Field(max_length=8)] = ()
    """Names of Secrets of type kubernetes.io/dockerconfigjson with which the node pulls images."""

    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict
    )
    """Labels of the pods, with keys that the chart's pods.allowedKeys lists."""

    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the pods, with keys that the chart's pods.allowedKeys lists."""

    service_account_annotations: Annotations = Field(default_factory=dict)
    """Annotations of the ServiceAccount of the pods, with keys that the chart's pods.allowedKeys
    lists: clouds bind their roles to a ServiceAccount by them (workload identity)."""

    env: Annotated[tuple[Variable, ...], Field(max_length=64), keyed_by("name")] = ()
    """Environment variables of the worker, for images of your own."""

    rules: ClassVar[tuple[Rule, ...]] = (
        no_two_share("env", "name", "two variables share a name", "keep one of them"),
        Rule(
            "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
            "PriorityClasses that begin with system- are Kubernetes' own",
            "use a PriorityClass of your cluster",
            ".priorityClassName",
        ),
        no_two_share(
            "topologySpread",
            "topologyKey",
            "two entries of topologySpread have one topologyKey",
            "keep one of them",
        ),
    )
