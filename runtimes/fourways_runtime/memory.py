"""The memory limit of this process, as its container sets it."""

from __future__ import annotations

from pathlib import Path

_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def share_of_memory(share: float, most: int) -> int:
    """Return a share of the container's memory in bytes, at most ``most``.

    Without a memory limit, returns ``most``.
    """
    for file in _FILES:
        try:
            text = Path(file).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return min(most, int(int(text) * share))
    return most
