"""A device whose power is cut and whose files are damaged, in some thousand states.

``python -m tools.torture.device [--short]``. A series starts from a device in a known situation,
damages a file of it or not, and records the disk before each change that programs make
(:mod:`.device_states`). Each distinct disk is one state, in which this must hold:

* it answers, offline, with a whole model that it may have (:func:`must_answer`);
* no model was given up, since none crashed;
* a release older than one it has had is refused, or changes nothing;
* the newest release is installed by the next update, and answers.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from fourways_agent import check
from fourways_agent.state import SLOTS, Store

from . import device_rig as rig
from .device_states import Damage, damages, fingerprint, record, torn

MAX_PROGRAMS = 6
MAX_CUTS = 4
STATES = 5000
BATCH = 40

Examined = tuple[list[str], list[str]]
"""Marks of the disks that were examined, and what did not hold."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A device before anything happens to it."""

    name: str
    folder: Path
    had: int
    """Highest release it has verified."""

    versions: dict[str, int]
    """The version in each slot."""


@dataclass(frozen=True, slots=True)
class Series:
    """A device in a situation, and what happens to it."""

    situation: Situation
    programs: tuple[str, ...] = ()
    """Programs that run at once until the power is cut: ``start`` or ``update N``."""

    damage: tuple[str, Damage] | None = None
    """What was done to its files before."""

    cut_before: tuple[tuple[str, ...], ...] = ()
    """Programs during which the power was cut before, each time at any change."""

    seed: int = 0
    """Varies the order in which programs come to the disk, and what is torn."""

    @property
    def name(self) -> str:
        """What happens, in words."""
        damaged = self.damage[0] if self.damage else ""
        parts = (damaged, *(" + ".join(it) for it in (*self.cut_before, self.programs) if it))
        return f"{self.situation.name}: {', cut, then '.join(it for it in parts if it)}"


@dataclass(frozen=True, slots=True)
class DiskState:
    """One state: a disk, and what a device with it may answer."""

    name: str
    folder: Path
    had: int
    allowed: frozenset[float]
    needed: bool
    """Whether it must answer: a slot and the settings were whole before."""


class World:
    """Releases 1 to 4, and the situations a device can be in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made = rig.Releases(root / "releases")
        self.settings = rig.settings(self._made)
        self.releases = {at: self._made.make(at, sequence=at) for at in (1, 2, 3, 4)}
        self.situations = {it.name: it for it in self._situations()}

    def program(self, name: str, state: Path) -> Callable[[], Any]:
        """Return what a program of a case does."""
        if name == "start":
            return partial(rig.answer, state)
        release = self.releases[int(name.split()[1])]
        return partial(rig.follow, state, self.settings, release)

    def _situations(self) -> Iterator[Situation]:
        def made(
            name: str, had: int, versions: dict[str, int], *steps: Callable[[Path], Any]
        ) -> Situation:
            folder = self.root / "situations" / name
            Store(folder).prepare()
            Store(folder).remember(self.settings)
            for step in steps:
                _done(partial(step, folder))
            return Situation(name, folder, had, versions)

        def fetched(version: int) -> Callable[[Path], Any]:
            return lambda folder: rig.fetch(folder, self.settings, self.releases[version])

        def confirmed(folder: Path) -> None:
            check.boot(folder)

        first = (fetched(1), confirmed)
        second = (*first, fetched(2))
        yield made("new", 0, {})
        yield made("first, not started", 1, {"a": 1}, fetched(1))
        yield made("first", 1, {"a": 1}, *first)
        yield made("second, not started", 2, {"a": 1, "b": 2}, *second)
        yield made("second", 2, {"a": 1, "b": 2}, *second, confirmed)


def _done(step: Callable[[], Any]) -> None:
    def prepared() -> None:
        rig.prepare("before")
        step()

    if rig.result(*rig.forked(prepared)) is None:
        raise AssertionError("a situation cannot be made")


# ---------------------------------------------------------------- the states


def states(world: World, series: Series, work: Path) -> Iterator[DiskState]:
    """Yield the disks of a series; a folder is valid until the next one is asked for."""
    luck = random.Random(series.seed)  # noqa: S311
    base = work / "base"
    shutil.copytree(series.situation.folder, base)
    if series.damage is not None:
        series.damage[1](base)
    needed = must_answer(series.situation, base)
    ran = [name for programs in (*series.cut_before, series.programs) for name in programs]
    offered = [int(it.split()[1]) for it in ran if " " in it]
    allowed = frozenset(10.0 * it for it in (*series.situation.versions.values(), *offered))

    def state(name: str, folder: Path) -> DiskState:
        told = f"{series.name}{name}"
        return DiskState(told, folder, series.situation.had, allowed, needed)

    for at, names in enumerate(series.cut_before):
        programs = [world.program(name, base) for name in names]
        cut = luck.choice(record(programs, base, work / f"before-{at}", series.seed + at))
        shutil.rmtree(base)
        cut.folder.rename(base)
    if not series.programs:
        yield state("", base)
        return
    programs = [world.program(name, base) for name in series.programs]
    for snapshot in record(programs, base, work / "cuts", series.seed):
        name = f", cut before: {snapshot.step}" if snapshot.step else ", at their end"
        for how, tear in torn(snapshot, luck):
            folder = work / "torn"
            shutil.copytree(snapshot.folder, folder)
            tear(folder)
            yield state(f"{name}, {how}", folder)
            shutil.rmtree(folder, ignore_errors=True)
        yield state(name, snapshot.folder)
        shutil.rmtree(snapshot.folder, ignore_errors=True)


# ---------------------------------------------------------------- what must hold


def must_answer(situation: Situation, state: Path) -> bool:
    """Tell whether a device has what it needs to answer: settings, and a slot with all its files.

    Of the documents of a slot one of two copies is enough, and so of the settings.
    """
    before = situation.folder

    def same(name: str) -> bool:
        file, ours = before / name, state / name
        return file.is_file() and ours.is_file() and file.read_bytes() == ours.read_bytes()

    def whole(slot: str) -> bool:
        at = f"slots/{slot}"
        trio = ("signed/manifest.json", "signed/release.json", "signature.json")
        documents = same(f"{at}/documents.json") or all(same(f"{at}/{it}") for it in trio)
        model_files = ("model.onnx", "contract.json", "golden.jsonl")
        return documents and all(same(f"{at}/files/{it}") for it in model_files)

    settings = same("settings.json") or same("settings.copy.json")
    return settings and any(whole(slot) for slot in SLOTS if slot in situation.versions)


def faults(world: World, state: DiskState) -> Iterator[str]:
    """Yield what does not hold of a disk; it is changed by that."""
    kind, said = rig.outcome(partial(rig.answer, state.folder))
    if kind == "ok":
        if said not in state.allowed:
            yield f"it answers {said}, which is none of {sorted(state.allowed)}"
    elif state.needed or said[0] != "NoModel":
        yield f"it does not answer: {said}"
    bad = Store(state.folder).read().bad
    if bad:
        yield f"given up without a crash: {bad}"
    if state.had > 1:
        yield from _older_is_refused(world, state)
    newest = partial(rig.follow, state.folder, world.settings, world.releases[4])
    kind, said = rig.outcome(newest)
    if kind != "ok":
        yield f"the newest release is not installed: {said}"
    kind, said = rig.outcome(partial(rig.answer, state.folder))
    if (kind, said) != ("ok", 40.0):
        yield f"the newest release does not answer: {said}"


def _older_is_refused(world: World, state: DiskState) -> Iterator[str]:
    before = Store(state.folder).read().digest
    older = partial(rig.follow, state.folder, world.settings, world.releases[1])
    kind, said = rig.outcome(older)
    if kind == "error" and "older than" not in said[1]:
        yield f"an older release was not refused as that: {said}"
    if kind == "ok" and before is not None and Store(state.folder).read().digest != before:
        yield "an older release was installed"


# ---------------------------------------------------------------- the run


def all_series(world: World, seed: int) -> Iterator[Series]:
    """Yield series without end: the systematic ones first, then ones drawn by ``seed``."""
    at = world.situations
    luck = random.Random(seed)  # noqa: S311
    yield Series(at["new"], ("update 1",), seed=seed)
    for count in range(1, MAX_PROGRAMS + 1):
        for name in ("first, not started", "second, not started"):
            yield Series(at[name], ("start",) * count, seed=seed + count)
    for cuts in range(1, MAX_CUTS + 1):
        for name in ("first, not started", "second, not started"):
            for many in (1, MAX_PROGRAMS):
                before = (("start",) * many,) * cuts
                yield Series(at[name], ("start",), cut_before=before, seed=seed + cuts)
    for name in ("first", "second", "second, not started"):
        for others in range(MAX_PROGRAMS):
            yield Series(at[name], ("update 3", *["start"] * others), seed=seed + others)
    for name in ("first", "second, not started", "second"):
        yield from (Series(at[name], damage=it) for it in damages(at[name].folder))
    hurt = {name: list(damages(at[name].folder)) for name in at if name != "new"}
    while True:
        yield _drawn(world, luck, hurt)


def _drawn(world: World, luck: random.Random, hurt: dict[str, list[tuple[str, Damage]]]) -> Series:
    """Return a series of several misfortunes at once."""
    name = luck.choice(list(hurt))
    starts = ("start",) * luck.randint(0, MAX_PROGRAMS)
    programs = luck.choice([("update 3", *starts[1:]), starts or ("update 3",)])
    kinds = [("update 3",), ("start",), ("update 3", "start"), ("start",) * 3]
    before = tuple(luck.choice(kinds) for _ in range(luck.randint(0, MAX_CUTS)))
    damage = luck.choice([None, luck.choice(hurt[name])])
    return Series(world.situations[name], programs, damage, before, luck.randrange(2**31))


def some_series(world: World, seed: int) -> Iterator[Series]:
    """Yield a few of each kind: other ones with another seed."""
    luck = random.Random(seed)  # noqa: S311
    at = world.situations
    yield Series(at["new"], ("update 1",), seed=seed)
    yield Series(at["second, not started"], ("start",) * MAX_PROGRAMS, seed=seed)
    yield Series(at["second"], ("update 3", "start"), seed=seed)
    hurt = {name: list(damages(at[name].folder)) for name in ("first", "second")}
    for name, found in hurt.items():
        yield from (Series(at[name], damage=it) for it in luck.sample(found, 20))
    yield from (_drawn(world, luck, hurt) for _ in range(2))


def batches(found: Iterator[Series]) -> Iterator[list[Series]]:
    """Put series without programs together: a process is forked for each batch."""
    batch: list[Series] = []
    for series in found:
        if series.programs:
            yield [series]
            continue
        batch.append(series)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def examine(world: World, batch: Sequence[Series], work: Path, known: Set[str]) -> Examined:
    """Examine the disks of a batch that are not known yet; return which, and what did not hold."""
    new: dict[str, None] = {}
    told = []
    for series in batch:
        work.mkdir(parents=True)
        # All programs of a series are forked before its first disk loads a model here.
        for state in states(world, series, work):
            mark = f"{state.needed} {sorted(state.allowed)} {state.had} {fingerprint(state.folder)}"
            if mark in known or mark in new:
                continue
            new[mark] = None
            rig.prepare("after the cut")
            told += [f"{state.name}: {text}" for text in faults(world, state)]
        shutil.rmtree(work)
    return list(new), told


def torture(world: World, found: Iterator[Series], wanted: int, seconds: float) -> int:
    """Examine series on all processors until there are enough states; return the faults."""
    began, known, count = monotonic(), set[str](), 0
    shown = 0
    todo = batches(found)
    running: dict[int, tuple[int, Path]] = {}
    numbers = itertools.count()
    try:
        while True:
            going_on = len(known) < wanted and monotonic() - began < seconds
            while going_on and len(running) < (os.cpu_count() or 1):
                batch = next(todo, None)
                if not batch:
                    going_on = False
                    break
                work = world.root / f"work-{next(numbers)}"
                reading, pid = rig.forked(partial(examine, world, batch, work, known))
                running[reading] = pid, work
            if not running:
                break
            for reading in select.select(list(running), [], [])[0]:
                pid, work = running.pop(reading)
                ended = rig.result(reading, pid)
                new, told = ended[0] if ended else ([], ["a process was killed"])
                shutil.rmtree(work, ignore_errors=True)
                known.update(new)
                count += len(told)
                for text in told:
                    print(f"FAULT {text}", flush=True)
            if len(known) - shown >= 500:
                shown = len(known)
                print(f"{shown} states, {count} faults, {monotonic() - began:.0f} s", flush=True)
    finally:
        for pid, _ in running.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print(f"{len(known)} states, {count} faults, {monotonic() - began:.0f} s", flush=True)
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long form, or a few states; return 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="a few series of each kind")
    parser.add_argument("--states", type=int, default=STATES, help="stop after as many states")
    seed = random.randrange(2**31)  # noqa: S311
    parser.add_argument("--seed", type=int, default=seed, help="to repeat a run")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this time")
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}", flush=True)
    memory = Path("/dev/shm")  # noqa: S108  (a disk would be written some million times)
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fourways-torture-", dir=place) as root:
        world = World(Path(root))
        found = (some_series if asked.short else all_series)(world, asked.seed)
        return 1 if torture(world, found, asked.states, asked.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
