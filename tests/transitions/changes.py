"""Every change of a deployment that the disturbances are tried on."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fourways_operator.facts import Json

from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Step


def deployment(name: str = "churn", **spec: Any) -> Json:
    """Return a valid batch deployment, with parts of its spec replaced."""
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "mode": "batch",
            "model": {"uri": "pvc://models/churn.onnx", "version": "1"},
            "contract": {
                "entityKey": {"name": "customer"},
                "inputs": [{"name": "orders", "type": "int32"}],
                "outputs": [{"name": "probability", "type": "float32"}],
            },
            "batch": {"schedule": "0 3 * * *", "source": {"uri": "pvc://data/customers.parquet"}},
            **deepcopy(spec),
        },
    }


STREAMING = {
    "source": {"kafka": {"bootstrapServers": "kafka:9092", "topic": "orders"}},
}
FEATURES = {"database": {"secretName": "features"}, "table": "customers"}
EDGE = {
    "targets": [{"name": "till", "budget": {"sizeMiB": 8, "memoryMiB": 64, "latencyMs": 5}}],
    "signing": {"secretName": "signing"},
    "publish": "pvc://models/bundles",
    "features": FEATURES,
}
BLOCKS = {
    "batch": {},
    "realtime": {"realtime": {"minReplicas": 2, "maxReplicas": 3, "features": FEATURES}},
    "streaming": {"streaming": STREAMING},
    "edge": {"edge": EDGE},
}
"""What a deployment of each mode says besides."""

HOURLY = {"schedule": "@hourly", "source": {"uri": "pvc://data/customers.parquet"}}
BAD = {"schedule": "whenever", "source": {"uri": "pvc://data/customers.parquet"}}
SECOND = {"uri": "s3://models/churn.onnx", "version": "2", "digest": "sha256:" + "a" * 64}


def apply(name: str = "churn", **spec: Any) -> Step:
    """Return the step of applying a deployment."""
    return lambda cluster: cluster.user_apply(deployment(name, **spec))


def in_mode(mode: str, name: str = "churn", **spec: Any) -> Step:
    """Return the step of applying a deployment of a mode."""
    if mode == "edge":
        spec = {"contract": GOLDEN, **spec}
    return apply(name, mode=mode, **BLOCKS[mode], resources={"cpu": "0.5"}, **spec)


def delete(name: str = "churn") -> Step:
    """Return the step of deleting a deployment."""
    return lambda cluster: cluster.user_delete("ModelDeployment", NAMESPACE, name)


def recreate(name: str = "churn", **spec: Any) -> Step:
    """Return the step of deleting a deployment and creating another before anyone looks."""

    def step(cluster: FakeCluster) -> None:
        cluster.user_delete("ModelDeployment", NAMESPACE, name)
        cluster.user_apply(deployment(name, **spec))

    return step


GOLDEN = {**deployment()["spec"]["contract"], "goldenVectors": {"uri": "pvc://models/golden"}}

CHANGES: dict[str, tuple[tuple[Step, ...], tuple[Step, ...]]] = {
    "create": ((), (apply(),)),
    "edit the schedule": ((apply(),), (apply(batch=HOURLY),)),
    "new model version": ((apply(),), (apply(model=SECOND),)),
    "mode and back": (
        (apply(),),
        (apply(mode="streaming", streaming=STREAMING), apply()),
    ),
    "batch to realtime": ((apply(),), (in_mode("realtime"),)),
    "edge to streaming": ((in_mode("edge"),), (in_mode("streaming"),)),
    "new model for the edge": ((in_mode("edge"),), (in_mode("edge", model=SECOND),)),
    "invalid and back": ((apply(),), (apply(batch=BAD), apply(batch=HOURLY))),
    "delete": ((apply(),), (delete(),)),
    "delete and recreate": ((apply(),), (recreate(batch=HOURLY),)),
    "a second one": ((apply(),), (apply("risk"),)),
    "delete one of two": ((apply(), apply("risk")), (delete(),)),
    "delete both": ((apply(), apply("risk")), (delete(), delete("risk"))),
}
"""What was there before, settled, and what is done then, each step settled too."""
