"""The part of the cgroup tree for the local cluster's pods, under cgroup v1 and v2.

The kubelet requires its root to exist before it starts, with every controller that it uses for
accounting.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tools.cluster.config import Checkout

_ROOT = Path("/sys/fs/cgroup")


def make(checkout: Checkout) -> None:
    """Create the cluster's group in every hierarchy."""
    for hierarchy in _hierarchies():
        controllers = hierarchy / "cgroup.controllers"
        if controllers.exists():
            _delegate(hierarchy, controllers.read_text().split())
        group = hierarchy / checkout.netns
        group.mkdir(exist_ok=True)
        # Under v1 a new cpuset is empty, and no process can join it until it is filled.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (group / name).exists() and not controllers.exists():
                (group / name).write_text((hierarchy / name).read_text())


def remove(checkout: Checkout) -> None:
    """Remove the cluster's groups, deepest first; their processes must have ended."""
    for group in groups(checkout):
        with suppress(FileNotFoundError):
            group.rmdir()


def groups(checkout: Checkout) -> list[Path]:
    """Every existing group of the cluster, deepest first."""
    found: list[Path] = []
    for hierarchy in _hierarchies():
        top = hierarchy / checkout.netns
        if top.is_dir():
            found += [path for path in top.rglob("*") if path.is_dir()]
            found.append(top)
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _hierarchies() -> Iterator[Path]:
    """v2 is one tree; v1 has one per controller, with symbolic links for those mounted together."""
    if (_ROOT / "cgroup.controllers").exists():
        yield _ROOT
        return
    for path in sorted(_ROOT.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield path


def _delegate(hierarchy: Path, controllers: list[str]) -> None:
    """Under v2 a child has the controllers that its parent delegates."""
    for name in controllers:
        # The kubelet works without a controller that cannot be delegated here.
        with suppress(OSError):
            (hierarchy / "cgroup.subtree_control").write_text(f"+{name}")
