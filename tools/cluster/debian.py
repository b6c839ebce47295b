"""The local cluster's Debian packages, and the root file system of the base image.

Packages are installed only if the required file is missing. Their services are never started: the
cluster runs its own copies with its own folders.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.cluster.config import cache_root
from tools.cluster.errors import ClusterError
from tools.cluster.shell import lock, run, step

# A file that shows that a package is installed -> the package.
PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "openssl": "openssl",
    "nsenter": "util-linux",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}

SUITE = "bookworm"
# Packages that python:3.11-slim-bookworm has and a minimal Debian does not have.
BASE_PACKAGES = (
    "ca-certificates",
    "netbase",
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-venv",
    "tzdata",
)
# Removed again: pip's refusal to install beside Debian's packages (an image has no such users),
# and files that only people read.
_HOOK = (
    'rm -rf "$1"/usr/lib/python3*/EXTERNALLY-MANAGED "$1"/usr/share/doc/* "$1"/usr/share/man/*'
    ' "$1"/usr/share/locale/* "$1"/var/cache/apt/* "$1"/etc/hostname "$1"/etc/resolv.conf'
)
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing_packages(wanted: Mapping[str, str] = PACKAGES) -> list[str]:
    """Required Debian packages, for the local cluster or others, that this machine lacks."""
    absent = {package for file, package in wanted.items() if not _present(file)}
    return sorted(absent)


def have(wanted: Mapping[str, str]) -> None:
    """Install missing packages; if that is not permitted here, raise an error that names them."""
    absent = missing_packages(wanted)
    if absent and (os.geteuid() != 0 or shutil.which("apt-get") is None):
        raise ClusterError(f"missing, and may not be installed here: {', '.join(absent)}")
    install_packages(wanted)


def install_packages(wanted: Mapping[str, str] = PACKAGES) -> None:
    """Install missing packages; one `apt-get update`, and only if something is missing."""
    if not missing_packages(wanted):
        return
    with lock(cache_root() / "locks" / "apt"):
        packages = missing_packages(wanted)
        if not packages:
            return
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        with step(f"apt-get install {' '.join(packages)}"), _services_kept_down():
            run(["apt-get", "update", "-q"], env=env)
            run(["apt-get", "install", "-qy", "--no-install-recommends", *packages], env=env)


def base_root_archive() -> Path:
    """Archive of the base image's root file system, created once per machine and kept in the
    cache."""
    archive = cache_root() / "base" / f"{base_hash()}.tar"
    if archive.exists():
        return archive
    with lock(cache_root() / "locks" / "base"):
        if not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            unfinished = archive.with_name(f".{archive.name}.{os.getpid()}.tar")
            with step(f"mmdebstrap {SUITE} (base image)"):
                try:
                    run(_mmdebstrap(unfinished))
                    unfinished.rename(archive)
                finally:
                    unfinished.unlink(missing_ok=True)
    return archive


def base_hash() -> str:
    """Identity of the base image: the requested contents, not the date of its creation."""
    asked = "\0".join([SUITE, *BASE_PACKAGES, _HOOK])
    return hashlib.sha256(asked.encode()).hexdigest()[:12]


def _mmdebstrap(target: Path) -> list[str]:
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(BASE_PACKAGES)}",
        f"--customize-hook={_HOOK}",
        SUITE,
        str(target),
    ]
    # The machine may use a mirror; its own sources are used if they are of the same suite.
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if sources.exists() and SUITE in sources.read_text():
        command.append(str(sources))
    return command


def _present(file: str) -> bool:
    return Path(file).exists() if file.startswith("/") else shutil.which(file) is not None


@contextmanager
def _services_kept_down() -> Iterator[None]:
    """Debian runs policy-rc.d before it starts a service; 101 forbids it. An existing one is
    kept."""
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)
