"""States of a device's disk: recorded before each change that programs make, torn, or damaged.

A run of programs is recorded once: each program takes a lock around each change of the disk and
copies the state folder before it. Each copy is what a power cut at this moment leaves, except that
a file which was not synced yet may be torn.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fourways_runtime import folder_writer

from . import device_rig as rig

LOCKS = ("state.lock", "start.lock", "update.lock")
Damage = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The disk before a change."""

    step: str
    """The change that was about to be made; empty after the last one."""

    folder: Path


def record(
    programs: Sequence[Callable[[], Any]], state: Path, into: Path, seed: int
) -> list[Snapshot]:
    """Run programs at once, each in a process; return the disk before each of their changes.

    ``seed`` varies the order in which the programs come to the disk.
    """
    into.mkdir(parents=True)
    go, held = os.pipe()
    children = [_forked(work, state, into, go, held, seed + at) for at, work in enumerate(programs)]
    os.close(go)
    os.close(held)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise AssertionError(f"a recorded program ended with {status}")
    shutil.copytree(state, into / f"{_count(into):05d}")
    steps = {int(it.stem): it.read_text() for it in into.glob("*.step")}
    folders = sorted(it for it in into.iterdir() if it.is_dir())
    return [Snapshot(steps.get(int(it.name), ""), it) for it in folders]


def _forked(work: Callable[[], Any], state: Path, into: Path, go: int, held: int, seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            os.close(held)
            rig.prepare("before the cut")
            _copy_before_changes(state, into, random.Random(seed))  # noqa: S311
            os.read(go, 1)  # its end, once all programs are there
            rig.outcome(work)  # refused or not, it is the disk that is looked at
            code = 0
        os._exit(code)
    return pid


def _copy_before_changes(state: Path, into: Path, luck: random.Random) -> None:
    lock = os.open(into.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    @contextmanager
    def change(step: str) -> Iterator[None]:
        time.sleep(luck.uniform(0, 0.0005))
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            number = _count(into)
            shutil.copytree(state, into / f"{number:05d}")
            (into / f"{number:05d}.step").write_text(step)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    folder_writer.on_change = change


def _count(into: Path) -> int:
    return sum(it.suffix == "" for it in into.iterdir())


def torn(snapshot: Snapshot, luck: random.Random) -> list[tuple[str, Damage]]:
    """Return what a power cut may leave of a file that was not synced: nothing, or a part."""
    done = snapshot.step.removeprefix("rename ") if snapshot.step.startswith("rename ") else None
    found: list[tuple[str, Damage]] = []
    for file in sorted(snapshot.folder.rglob("*")):
        if not file.is_file() or not (file.name.endswith((".new", ".part"))):
            continue
        size = file.stat().st_size
        if not size or file.name in (f".{done}.new", f"{done}.part"):
            continue
        name = str(file.relative_to(snapshot.folder))
        found += [
            (f"{name} torn at {length}", partial(truncate, name, length))
            for length in (0, luck.randrange(size))
        ]
    return found


# ---------------------------------------------------------------- damage


def damages(folder: Path) -> Iterator[tuple[str, Damage]]:
    """Yield each file deleted, emptied, truncated, changed, and exchanged with each other file.

    Also both copies of a document deleted or emptied.
    """
    names = sorted(
        str(it.relative_to(folder))
        for it in folder.rglob("*")
        if it.is_file() and it.name not in LOCKS
    )
    for name in names:
        size = (folder / name).stat().st_size
        yield f"{name} deleted", partial(_delete, name)
        for length in sorted({0, 1, size // 4, size // 2, size - 1} - {size, -1}):
            yield f"{name} truncated to {length}", partial(truncate, name, length)
        yield f"{name} with a flipped bit", partial(_flip, name)
    for one in names:
        other = one.replace(".json", ".copy.json")
        if other != one and other in names:
            yield f"{one} and {other} deleted", partial(_both, _delete, one, other)
            emptied = partial(_both, partial(_truncated, 0), one, other)
            yield f"{one} and {other} emptied", emptied
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            yield f"{one} and {other} exchanged", partial(_exchange, one, other)


def truncate(name: str, length: int, state: Path) -> None:
    """Cut a file off."""
    os.truncate(state / name, length)


def _delete(name: str, state: Path) -> None:
    (state / name).unlink()


def _truncated(length: int, name: str, state: Path) -> None:
    truncate(name, length, state)


def _both(how: Callable[[str, Path], None], one: str, other: str, state: Path) -> None:
    how(one, state)
    how(other, state)


def _flip(name: str, state: Path) -> None:
    raw = bytearray((state / name).read_bytes())
    if raw:
        raw[len(raw) // 3] ^= 4
    (state / name).write_bytes(raw)


def _exchange(one: str, other: str, state: Path) -> None:
    first, second = (state / one).read_bytes(), (state / other).read_bytes()
    (state / one).write_bytes(second)
    (state / other).write_bytes(first)


def fingerprint(state: Path) -> str:
    """Return a hash of a disk; the number of the process that wrote the pointer does not count."""
    told = hashlib.sha256()
    for file in sorted(state.rglob("*")):
        if not file.is_file() or file.name in LOCKS:
            continue
        raw = file.read_bytes()
        if file.name.strip(".").startswith("state."):
            with suppress(ValueError, TypeError):
                found = dict(json.loads(raw))
                told_by_it = found.pop("checksum", "")
                content = json.dumps(["state.json", found], sort_keys=True).encode()
                if told_by_it == f"sha256:{hashlib.sha256(content).hexdigest()}":
                    raw = json.dumps(found | {"pid": 0}, sort_keys=True).encode()
        told.update(f"{file.relative_to(state)} {len(raw)} ".encode() + raw)
    return told.hexdigest()
