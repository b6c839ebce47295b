"""Mounts below a folder: finding them, and undoing them before the folder is deleted."""

import re
from pathlib import Path

from tools.cluster.shell import run


def below(folder: Path) -> list[str]:
    """Mount points below `folder`, the last mounted first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # The kernel writes a space as \040.
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4])
        if point.startswith(f"{folder}/"):
            found.append(point)
    return found[::-1]


def unmount_below(folder: Path) -> None:
    """Unmount everything below `folder`.

    Lazily: a container's root may be busy until the kernel has reaped its last process. No process
    of ours writes there any more.
    """
    if points := below(folder):
        run(["umount", "--lazy", *points])
