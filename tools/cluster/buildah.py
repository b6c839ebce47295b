"""Building images without Docker: buildah, with its own storage under the cache.

RUN steps are isolated with chroot, the only way that needs neither a container engine nor a network
of its own. Layers are cached, so a change of source does not install the dependencies again.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.cluster import archive, debian, hostconfig, mounts
from tools.cluster.config import cache_root
from tools.cluster.shell import lock, run, step, succeeds

_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
_LAYER_SECONDS = 3 * 86_400
"""Cached layers older than this are removed: each change of a source leaves one behind."""

_BASE_SETTINGS = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["python3"],
}


def base_reference() -> str:
    """Name of the base image, instead of the Dockerfiles' `ARG BASE`."""
    return f"localhost/fourways-base-debian:{debian.base_hash()}"


@contextmanager
def session() -> Iterator[None]:
    """Hold the storage exclusively, and remove its mounts afterwards."""
    with lock(cache_root() / "locks" / "buildah"):
        policy = _home() / "policy.json"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text(_POLICY, encoding="utf-8")
        try:
            yield
        finally:
            mounts.unmount_below(_home())


def build(
    dockerfile: Path, target: str | None, context: Path, reference: str, arguments: dict[str, str]
) -> None:
    """Build an image into the storage, under `reference`."""
    _have_base()
    with tempfile.TemporaryDirectory(prefix="fourways-build-") as folder:
        command = [*_buildah("bud"), "--isolation", "chroot", "--layers", "--pull-never"]
        for source, inside in hostconfig.write(Path(folder)).items():
            command += ["--volume", f"{source}:{inside}:ro"]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        command += ["--target", target] if target else []
        run([*command, "--file", str(dockerfile), "--tag", reference, str(context)])


def save(reference: str, target: Path) -> None:
    """Write an image of the storage as an archive that containerd imports."""
    unfinished = target.with_name(f".{target.name}")
    unfinished.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    run([*_buildah("push"), reference, f"docker-archive:{unfinished}:{reference}"])
    unfinished.rename(target)


def forget(reference: str) -> None:
    """Remove an image's name from the storage, with the layers that nothing else uses."""
    succeeds([*_buildah("rmi"), reference])


def forget_old_layers() -> None:
    """Remove cached layers made more than some days ago; a build that needs one makes it again."""
    nameless = [*_buildah("images"), "--json", "--filter", "dangling=true"]
    found = json.loads(run(nameless)) or []  # null if there is none
    oldest = time.time() - _LAYER_SECONDS
    for image in found:
        if image["created"] < oldest:
            succeeds([*_buildah("rmi"), image["id"]])  # fails for one that another builds on


def _have_base() -> None:
    reference = base_reference()
    if succeeds([*_buildah("inspect"), "--type", "image", reference]):
        return
    layer = debian.base_root_archive()
    with step("base image into the builder's storage"), tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "base.tar"
        archive.write(image, reference, layer, _BASE_SETTINGS)
        run([*_buildah("pull"), f"docker-archive:{image}"])


def _buildah(command: str) -> list[str]:
    home = _home()
    places = ["--root", str(home / "root"), "--runroot", str(home / "run")]
    policy = []
    if command in ("bud", "pull", "push"):
        policy = ["--signature-policy", str(home / "policy.json")]
    return ["buildah", *places, "--storage-driver", "overlay", command, *policy]


def _home() -> Path:
    return cache_root() / "buildah"
