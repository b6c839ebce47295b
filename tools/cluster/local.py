"""The local cluster: up, down, and checks for leftovers.

`up` either finds every daemon running and responding, or removes everything that an earlier run
left and starts from the beginning: state that survived a crash is not trusted, and a fresh start
takes seconds.
"""

import shutil
import string
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import yaml

from tools.cluster import (
    cgroups,
    daemons,
    debian,
    mounts,
    network,
    node,
    pki,
    processes,
    storage,
    strays,
)
from tools.cluster.config import (
    COREDNS_VERSION,
    DNS_SERVICE_IP,
    NODE_NAME,
    PACKAGE,
    Checkout,
    cache_root,
)
from tools.cluster.errors import ClusterError
from tools.cluster.gobuild import Binaries, build
from tools.cluster.shell import lock, run, step, succeeds, wait_for

_COREDNS_IMAGE = f"localhost/fourways-coredns:{COREDNS_VERSION}"
_PATIENCE = 120.0  # A busy two-core machine takes a tenth of this.


def up(checkout: Checkout) -> None:
    """Start the cluster and wait for it; first install and build what it needs."""
    debian.install_packages()
    binaries = build()
    with _cluster_lock(checkout):
        if running(checkout):
            with step("already running"):
                _wait_ready(checkout, binaries)
            return
        with step("clear what an earlier run left"):
            _clear(checkout)
        _start(checkout, binaries)


def down(checkout: Checkout) -> None:
    """End the cluster and remove all of it; then check, and report anything that remains."""
    with _cluster_lock(checkout), step("cluster down"):
        _clear(checkout)
        if left := remains(checkout):
            raise ClusterError(f"left after down: {', '.join(left)}")


def running(checkout: Checkout) -> bool:
    """Whether every daemon is running. `up` checks whether they also respond."""
    return all(processes.alive(checkout, name) for name in daemons.ALL)


def remains(checkout: Checkout) -> list[str]:
    """Describe everything on this machine that belongs to the cluster."""
    found = [f"process {pid}" for pid in processes.all_of(checkout)]
    found += [f"mount {point}" for point in mounts.below(checkout.state)]
    found += [f"cgroup {group}" for group in cgroups.groups(checkout)]
    found += [f"network {name}" for name in network.remains(checkout)]
    found += [f"file {path}" for path in strays.of(checkout)]
    return found + ([f"folder {checkout.state}"] if checkout.state.exists() else [])


def _cluster_lock(checkout: Checkout) -> AbstractContextManager[None]:
    return lock(cache_root() / "locks" / f"cluster-{checkout.id}")


def _start(checkout: Checkout, binaries: Binaries) -> None:
    commands = daemons.commands(checkout, binaries)

    def start(names: tuple[str, ...]) -> None:
        for name in names:
            processes.start(checkout, name, commands[name])

    with step("folders, certificates, network"):
        for folder in (checkout.run_dir, checkout.log_dir):
            folder.mkdir(parents=True)
        storage.make_directories(checkout)
        pki.make(checkout)
        daemons.write_files(checkout)
        cgroups.make(checkout)
        network.make(checkout)
    start(daemons.CONTROL_PLANE)
    start(daemons.NODE)
    with step("containerd and its first images"):
        _load_own_images(checkout, binaries)
    with step("API server"):
        _wait(checkout, "API server", lambda: _answers(checkout, binaries))
    start(daemons.CLIENTS)
    with step("manifests"):
        run(_kubectl(checkout, binaries, "apply", "-f", "-"), input_text=_manifests(checkout))
    with step("node and DNS ready"):
        _wait_ready(checkout, binaries)


def _load_own_images(checkout: Checkout, binaries: Binaries) -> None:
    _wait(checkout, "containerd", lambda: _containerd_answers(checkout))
    node.load_binary(checkout, daemons.PAUSE_IMAGE, binaries.path("pause"))
    node.load_binary(checkout, _COREDNS_IMAGE, binaries.path("coredns"))


def _manifests(checkout: Checkout) -> str:
    dns = (PACKAGE / "manifests" / "coredns.yaml").read_text(encoding="utf-8")
    filled = string.Template(dns).substitute(
        coredns_image=_COREDNS_IMAGE, dns_service_ip=DNS_SERVICE_IP
    )
    return f"{filled}---\n{yaml.safe_dump_all(storage.manifests(checkout))}"


def _wait_ready(checkout: Checkout, binaries: Binaries) -> None:
    """Wait for node and DNS; both are requested by name, because an empty list does not mean
    ready."""
    node_ready = _kubectl(
        checkout, binaries, "wait", f"node/{NODE_NAME}", "--for=condition=Ready", "--timeout=5s"
    )
    dns = _kubectl(
        checkout, binaries, "-n", "kube-system", "rollout", "status", "deployment/coredns"
    )
    _wait(checkout, "node", lambda: succeeds(node_ready))
    _wait(checkout, "cluster DNS", lambda: succeeds([*dns, "--timeout=30s"], timeout=40))


def _wait(checkout: Checkout, what: str, ready: Callable[[], bool]) -> None:
    def check() -> None:
        for file in checkout.run_dir.glob("*.pid"):
            if not processes.alive(checkout, file.stem):
                raise ClusterError(f"{file.stem} has ended: see {checkout.log_dir}/{file.stem}.log")

    wait_for(what, ready, seconds=_PATIENCE, hint=str(checkout.log_dir), alive=check)


def _answers(checkout: Checkout, binaries: Binaries) -> bool:
    return succeeds(_kubectl(checkout, binaries, "get", "--raw", "/readyz"), timeout=5)


def _containerd_answers(checkout: Checkout) -> bool:
    return checkout.containerd_socket.exists() and succeeds(
        ["ctr", "--address", checkout.containerd_socket, "version"], timeout=5
    )


def _kubectl(checkout: Checkout, binaries: Binaries, *arguments: str) -> list[str]:
    return [str(binaries.kubectl), "--kubeconfig", str(checkout.kubeconfig), *arguments]


def _clear(checkout: Checkout) -> None:
    """Undo everything in the order of dependencies; ignore what does not exist."""
    processes.end(checkout, daemons.END_FIRST)
    strays.remove(checkout)
    mounts.unmount_below(checkout.state)
    cgroups.remove(checkout)
    network.remove(checkout)
    if checkout.state.exists():
        shutil.rmtree(checkout.state)
    with suppress(OSError):  # it holds the state of other checkouts
        checkout.state.parent.rmdir()
