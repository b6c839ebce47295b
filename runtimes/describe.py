"""Describes what an image installs: ``describe.py PYTHON FOLDER``.

Writes two files into FOLDER about the packages of the interpreter PYTHON: ``sbom.cdx.json``, a
bill of materials in CycloneDX, and ``THIRD-PARTY-NOTICES.txt``, their licences. The image is built
with it. Debian's packages are listed in the image itself, in ``/var/lib/dpkg/status``.

Needs cyclonedx-bom and pip-licenses beside the interpreter that runs this (group ``image``).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SBOM = "sbom.cdx.json"
NOTICES = "THIRD-PARTY-NOTICES.txt"


def describe(python: str, folder: Path) -> None:
    """Write both files. Raises CalledProcessError if a tool fails."""
    folder.mkdir(parents=True, exist_ok=True)
    tools = Path(sys.executable).parent
    # fmt: off
    subprocess.run(
        [
            tools / "cyclonedx-py", "environment", "--output-reproducible", "--of", "JSON",
            "-o", folder / SBOM, python,
        ],
        check=True,
    )
    subprocess.run(
        [
            tools / "pip-licenses", f"--python={python}", "--with-license-file",
            "--with-notice-file", "--with-urls", "--no-license-path", "--format=plain-vertical",
            f"--output-file={folder / NOTICES}",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    # fmt: on


if __name__ == "__main__":
    describe(sys.argv[1], Path(sys.argv[2]))
