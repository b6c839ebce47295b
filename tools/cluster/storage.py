"""Storage of the local cluster: a default StorageClass whose claims bind at once.

There is no provisioner. A set of hostPath volumes waits for claims. When a claim is deleted, the
`volumes` daemon (go/cmd/hyper/volumes.go) empties its volume, which then waits for the next claim.
"""

from typing import Any

from tools.cluster.config import Checkout

_CLASS = "standard"
_COUNT = 20
_SIZE = "5Gi"


def manifests(checkout: Checkout) -> list[dict[str, Any]]:
    """The StorageClass and the volumes, for `kubectl apply`."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": _CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    }
    return [storage_class, *(_volume(checkout, number) for number in range(_COUNT))]


def make_directories(checkout: Checkout) -> None:
    """Create the volumes' folders, writable for any user, because a hostPath ignores fsGroup."""
    for number in range(_COUNT):
        folder = checkout.state / "volumes" / str(number)
        folder.mkdir(parents=True)
        folder.chmod(0o777)


def _volume(checkout: Checkout, number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"fw-pv-{number}"},
        "spec": {
            "storageClassName": _CLASS,
            "capacity": {"storage": _SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"{checkout.state}/volumes/{number}", "type": "Directory"},
        },
    }
