"""SoftHSM, Debian's package: an HSM in files, with the interface of one (PKCS#11)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.cluster.debian import have

DRIVER = Path("/usr/lib/softhsm/libsofthsm2.so")
PROGRAM = Path("/usr/bin/softhsm2-util")
PACKAGES = {str(PROGRAM): "softhsm2"}


def softhsm() -> Path:
    """Return the driver, installed if it is missing.

    Raises:
        ClusterError: it is missing and may not or cannot be installed here.

    """
    have(PACKAGES)
    return DRIVER


def new_token(folder: Path, label: str, pin: str) -> dict[str, str]:
    """Make a token that is kept in a folder; return the environment for its driver."""
    (folder / "tokens").mkdir(parents=True)
    file = folder / "softhsm2.conf"
    file.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    environment = {"SOFTHSM2_CONF": str(file)}
    command = [
        str(PROGRAM),
        "--init-token",
        "--free",
        "--label",
        label,
        "--pin",
        pin,
        "--so-pin",
        pin,
    ]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return environment
