"""Files that containerd and the kubelet write outside the state folder, at fixed paths.

The contents of each file show whether it is ours, because other clusters on this machine write
there too.
"""

import socket
from contextlib import suppress
from pathlib import Path

from tools.cluster.config import Checkout

_SHIM_ADDRESSES = "containerd/state/io.containerd.runtime.v2.task/*/*/address"
_SHIM_SOCKETS = Path("/run/containerd/s")
_CNI_RESULTS = Path("/var/lib/cni/results")
_CONTAINER_LOGS = Path("/var/log/containers")
_DEVICE_SOCKET = Path("/var/lib/kubelet/device-plugins/kubelet.sock")


def of(checkout: Checkout) -> list[Path]:
    """Files that belong to the checkout's cluster; call it after its processes have ended."""
    inside = f"{checkout.state}/"
    addresses = checkout.state.glob(_SHIM_ADDRESSES)
    found = [Path(address.read_text().removeprefix("unix://")) for address in addresses]
    if _CNI_RESULTS.is_dir():
        found += [file for file in _CNI_RESULTS.iterdir() if inside in file.read_text()]
    if _CONTAINER_LOGS.is_dir():
        links = [path for path in _CONTAINER_LOGS.iterdir() if path.is_symlink()]
        found += [link for link in links if str(link.readlink()).startswith(inside)]
    if _nobody_listens(_DEVICE_SOCKET):
        found.append(_DEVICE_SOCKET)
    return [path for path in found if path.is_symlink() or path.exists()]


def remove(checkout: Checkout) -> None:
    """Remove them, and their folders if no other cluster's files remain in them."""
    for path in of(checkout):
        path.unlink(missing_ok=True)
    for folder in (_SHIM_SOCKETS, _CNI_RESULTS, _CONTAINER_LOGS, _DEVICE_SOCKET.parent):
        for empty in (folder, folder.parent):
            if empty != Path("/var/log"):
                with suppress(OSError):
                    empty.rmdir()


def _nobody_listens(path: Path) -> bool:
    """Whether a socket's file outlived its server; another cluster's kubelet would respond."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
