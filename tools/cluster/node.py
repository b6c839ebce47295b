"""Images on the local cluster's node: listing and importing them."""

from collections.abc import Sequence
from pathlib import Path

from tools.cluster import archive
from tools.cluster.config import Checkout
from tools.cluster.shell import run


def images(checkout: Checkout) -> set[str]:
    """References of the images on the node."""
    return set(run([*_ctr(checkout), "images", "ls", "-q"]).split())


def load(checkout: Checkout, file: Path) -> None:
    """Import an image archive, Docker's or OCI's."""
    run([*_ctr(checkout), "images", "import", file])


def tag(checkout: Checkout, reference: str, name: str) -> None:
    """Make `name` an alias of the image `reference`."""
    run([*_ctr(checkout), "images", "tag", "--force", reference, name])


def load_binary(
    checkout: Checkout, reference: str, binary: Path, links: Sequence[str] = ()
) -> None:
    """Create an image that contains only `binary`, and `links` to it, and import it."""
    layer, image = checkout.state / f"{binary.name}.layer", checkout.state / f"{binary.name}.tar"
    archive.layer_of(layer, binary, links)
    archive.write(image, reference, layer, {"Entrypoint": [f"/{binary.name}"], "WorkingDir": "/"})
    load(checkout, image)
    layer.unlink()
    image.unlink()


def _ctr(checkout: Checkout) -> list[str]:
    return ["ctr", "--address", str(checkout.containerd_socket), "--namespace", "k8s.io"]
