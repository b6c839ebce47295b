"""Images of the project's Dockerfiles, made available on the cluster's node.

An image is identified by its inputs: Dockerfile, target, base image, and the files that its COPY
steps name. An image that the node has is not built again; one that the cache has is only loaded.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tools.cluster import buildah, debian, kind, local, node
from tools.cluster.config import Checkout, cache_root
from tools.cluster.detect import Kind
from tools.cluster.errors import ClusterError
from tools.cluster.shell import run, step, succeeds

_SPEC = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._/-]*)=(?P<dockerfile>[^:@]+)(:(?P<target>[^:@]+))?@(?P<context>.+)"
)
_BIND = re.compile(r"--mount=(\S*type=bind\S*)")
# Not part of an image's identity: they change without a change of the source.
_IGNORED = frozenset(
    {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
_KEPT_ARCHIVES = 2


@dataclass(frozen=True)
class ImageSpec:
    """An image to build: `NAME=DOCKERFILE[:TARGET]@CONTEXT`."""

    name: str
    dockerfile: Path
    target: str | None
    context: Path

    @property
    def repository(self) -> str:
        """The image's name on the node, without its tag."""
        return f"localhost/{self.name}"


def parse(text: str) -> ImageSpec:
    """Read an image from the command line; argparse turns the ValueError into its own error."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ValueError(text)
    context, dockerfile = Path(match["context"]).resolve(), Path(match["dockerfile"]).resolve()
    return ImageSpec(match["name"], dockerfile, match["target"], context)


def provide(checkout: Checkout, which: Kind, specs: Sequence[ImageSpec]) -> list[str]:
    """Load every image onto the node; return their references, in the given order."""
    if which is Kind.GIVEN:
        raise ClusterError(
            "images cannot be put on a given cluster: push them to a registry it pulls from, and "
            "name them in FOURWAYS_OPERATOR_IMAGE, FOURWAYS_RUNTIME_IMAGE and so on, as "
            "tools.installation does"
        )
    for spec in specs:
        if not spec.dockerfile.is_file() or not spec.context.is_dir():
            raise ClusterError(f"{spec.name}: no {spec.dockerfile}, or no folder {spec.context}")
    if which is Kind.KIND:
        return [_provide_with_docker(checkout, spec) for spec in specs]
    if not local.running(checkout):
        raise ClusterError("the cluster is not running: python -m tools.cluster up")
    return [_provide_with_buildah(checkout, spec) for spec in specs]


def identity(spec: ImageSpec) -> str:
    """Hash of all inputs of the image."""
    digest = sha256(spec.dockerfile.read_bytes())
    digest.update(f"\0{spec.target}\0{debian.base_hash()}".encode())
    for file in sorted(_files(spec)):
        digest.update(f"\0{file.relative_to(spec.context)}\0{file.stat().st_mode & 0o111}".encode())
        digest.update(sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _provide_with_buildah(checkout: Checkout, spec: ImageSpec) -> str:
    reference = f"{spec.repository}:{identity(spec)}"
    if reference not in node.images(checkout):
        archive = _archive(spec)
        with buildah.session():
            if not archive.exists():
                with step(f"build {reference}"):
                    arguments = {"BASE": buildah.base_reference()} if _takes_base(spec) else {}
                    buildah.build(spec.dockerfile, spec.target, spec.context, reference, arguments)
                with step(f"save {reference}"):
                    buildah.save(reference, archive)
                _drop_old(spec, archive)
            with step(f"load {reference}"):
                node.load(checkout, archive)
    node.tag(checkout, reference, f"{spec.repository}:dev")
    return reference


def _provide_with_docker(checkout: Checkout, spec: ImageSpec) -> str:
    reference, dev = f"{spec.repository}:{identity(spec)}", f"{spec.repository}:dev"
    if not succeeds(["docker", "image", "inspect", reference]):
        target = ["--target", spec.target] if spec.target else []
        files = ["--file", str(spec.dockerfile), "--tag", reference, str(spec.context)]
        with step(f"build {reference}"):
            run(["docker", "build", *target, *files])
    run(["docker", "tag", reference, dev])
    with step(f"load {reference}"):
        kind.load(checkout, [reference, dev])
    return reference


def _drop_old(spec: ImageSpec, newest: Path) -> None:
    """Keep the last few archives of an image; each is as large as the image."""
    found = [path for path in newest.parent.iterdir() if _same_name(path, newest)]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[_KEPT_ARCHIVES:]:
        path.unlink()
        buildah.forget(f"{spec.repository}:{path.stem.rpartition('_')[2]}")
    buildah.forget_old_layers()


def _archive(spec: ImageSpec) -> Path:
    # No colon in the file's name: buildah treats what follows it as a tag.
    return cache_root() / "images" / f"{spec.name.replace('/', '_')}_{identity(spec)}.tar"


def _same_name(one: Path, other: Path) -> bool:
    return one.stem.rpartition("_")[0] == other.stem.rpartition("_")[0]


def _takes_base(spec: ImageSpec) -> bool:
    return any(words[:1] == ["ARG"] and words[1].startswith("BASE") for words in _steps(spec))


def _files(spec: ImageSpec) -> set[Path]:
    """The files of the context that the Dockerfile names, and all files in folders that it
    names."""
    files: set[Path] = set()
    for source in _sources(spec):
        matched = spec.context.glob(source) if source not in ("", ".") else [spec.context]
        for path in matched:
            files.update([path] if path.is_file() else _below(path))
    return files


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in _IGNORED or path.suffix == ".pyc":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        elif path.is_file():
            yield path


def _sources(spec: ImageSpec) -> Iterator[str]:
    """Paths in the context that COPY, ADD and bind mounts take, as they are written."""
    for words in _steps(spec):
        if words[0] in ("COPY", "ADD"):
            flags = [word for word in words[1:] if word.startswith("--")]
            paths = [word for word in words[1:] if not word.startswith("--")]
            if not any(flag.startswith("--from=") for flag in flags):
                yield from (path.strip("/").removeprefix("./") for path in paths[:-1])
        for options in _BIND.findall(" ".join(words)):
            mount = {key: value for key, _, value in (o.partition("=") for o in options.split(","))}
            if "from" not in mount:
                source = mount.get("source", mount.get("src", "."))
                yield source.strip("/").removeprefix("./")


def _steps(spec: ImageSpec) -> list[list[str]]:
    """The Dockerfile's steps as words, with comments and line continuations resolved."""
    lines = spec.dockerfile.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    steps = []
    for line in re.sub(r"\\\s*\n", " ", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        name = name.upper()
        if not name:
            continue
        if name not in ("COPY", "ADD"):
            steps.append([name, *rest.split()])
        elif rest.lstrip().startswith("["):
            steps.append([name, *json.loads(rest)])
        else:
            steps.append([name, *shlex.split(rest)])
    return steps
