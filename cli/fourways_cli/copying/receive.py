"""Writes one file below a folder: whole and as its digest says, or not at all.

A pod runs this file as a script, so it imports nothing of ours. Its arguments are the folder, the
file's path below it, its size in bytes and its sha256 digest in hex; the file is standard input.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import IO

PART_BYTES = 1 << 16


def receive(root: str, relative: str, size: int, digest: str, stream: IO[bytes]) -> None:
    """Write the next ``size`` bytes of a stream to a file, and replace the one that is there.

    Raises:
        ValueError: the path leaves the folder, or the bytes are not those of the digest.
        OSError: the file cannot be written.

    """
    folder = os.path.realpath(root)
    target = os.path.realpath(os.path.join(folder, relative))
    if not target.startswith(folder + os.sep):
        raise ValueError(f"{relative} leaves the volume")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    unfinished = f"{target}.{os.getpid()}.part"
    try:
        with open(unfinished, "wb") as file:
            _copy(stream, file, size, digest)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)


def _copy(stream: IO[bytes], file: IO[bytes], size: int, digest: str) -> None:
    found, left = hashlib.sha256(), size
    while left:
        part = stream.read(min(PART_BYTES, left))
        if not part:
            break
        file.write(part)
        found.update(part)
        left -= len(part)
    if left or found.hexdigest() != digest:
        raise ValueError("the file changed or was cut while it was copied")


if __name__ == "__main__":
    try:
        receive(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.stdin.buffer)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
