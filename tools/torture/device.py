"""A device whose power is cut and whose files are damaged, in some thousand states.

``python -m tools.torture.device [--short]``. Each state is a device in a known situation, what
happens to it, and what must hold afterwards:

* it answers, offline, with a whole model that it may have (:func:`must_answer`);
* no model was given up, since none crashed;
* a release older than one it has had is refused, or changes nothing;
* the newest release is installed by the next update, and answers.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from fourways_agent import check
from fourways_agent.state import SLOTS, Store

from . import device_rig as rig

MAX_PROGRAMS = 6
_LOCKS = ("state.lock", "start.lock", "update.lock")


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
class Case:
    """One state: what happens to a device."""

    situation: Situation
    name: str
    programs: tuple[str, ...] = ()
    """Programs that run at once: ``start`` or ``update N``."""

    step: int = 0
    """The change of the disk before which the power is cut; 0: none is made."""

    damage: Callable[[Path], None] | None = None


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
                kind, said = rig.in_fork(partial(step, folder), "before")
                if kind != "ok":
                    raise AssertionError(f"{name}: {said}")
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


# ---------------------------------------------------------------- the states


def cut_cases(world: World, situation: str, *programs: str) -> Iterator[Case]:
    """Cut the power before each change of the disk that the programs make, one by one."""
    found = world.situations[situation]
    told = " + ".join(programs)
    step = 1
    while True:
        case = Case(found, f"{told}, power cut at {step}", programs, step)
        yield case
        if not case_was_cut.get(case.name + found.name, True):
            return
        step += 1


case_was_cut: dict[str, bool] = {}
"""Whether the last run of a case reached its step: the end of its series where not."""


def damage_cases(world: World, situation: str) -> Iterator[Case]:
    """Delete, empty, truncate each file, and exchange each two."""
    found = world.situations[situation]
    names = sorted(
        str(it.relative_to(found.folder))
        for it in found.folder.rglob("*")
        if it.is_file() and it.name not in _LOCKS
    )
    for name in names:
        for how, damage in (("deleted", _delete), ("emptied", _empty), ("truncated", _truncate)):
            yield Case(found, f"{name} {how}", damage=partial(damage, name))
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            damage = partial(_exchange, one, other)
            yield Case(found, f"{one} and {other} exchanged", damage=damage)


def damaged_then_cut(
    world: World, situation: str, luck: random.Random, count: int
) -> Iterator[Case]:
    """Damage one file, then cut the power at some step of an update."""
    cases = list(damage_cases(world, situation))
    for case in luck.sample(cases, min(count, len(cases))):
        step = luck.randint(1, 60)
        name = f"{case.name}, then an update, power cut at {step}"
        yield Case(case.situation, name, ("update 3",), step, case.damage)


def _delete(name: str, state: Path) -> None:
    (state / name).unlink()


def _empty(name: str, state: Path) -> None:
    (state / name).write_bytes(b"")


def _truncate(name: str, state: Path) -> None:
    raw = (state / name).read_bytes()
    (state / name).write_bytes(raw[: len(raw) // 2])


def _exchange(one: str, other: str, state: Path) -> None:
    first, second = (state / one).read_bytes(), (state / other).read_bytes()
    (state / one).write_bytes(second)
    (state / other).write_bytes(first)


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


def run(world: World, case: Case, work: Path) -> list[str]:
    """Run one case in a folder; return what did not hold."""
    state = work / "state"
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(case.situation.folder, state)
    if case.damage is not None:
        case.damage(state)
    needed = must_answer(case.situation, state)
    if case.programs:
        programs = [world.program(name, state) for name in case.programs]
        reached = rig.cut(programs, case.step, state, "before the cut")
        case_was_cut[case.name + case.situation.name] = reached
    return [*_answers(world, case, state, needed), *_goes_on(world, case, state)]


def _answers(world: World, case: Case, state: Path, needed: bool) -> Iterator[str]:
    kind, said = rig.in_fork(partial(rig.answer, state), "after the cut")
    offered = [int(it.split()[1]) for it in case.programs if it != "start"]
    allowed = {10.0 * it for it in (*case.situation.versions.values(), *offered)}
    if kind == "ok":
        if said not in allowed:
            yield f"it answers {said}, which is none of {sorted(allowed)}"
    elif needed or kind != "error" or said[0] != "NoModel":
        yield f"it does not answer: {kind} {said}"
    bad = Store(state).read().bad
    if bad:
        yield f"given up without a crash: {bad}"


def _goes_on(world: World, case: Case, state: Path) -> Iterator[str]:
    """An older release is refused, and the newest one is installed."""
    if case.situation.had > 1:
        before = Store(state).read()
        older = partial(rig.follow, state, world.settings, world.releases[1])
        kind, said = rig.in_fork(older, "after the cut")
        changed = Store(state).read().digest not in (before.digest, None)
        if kind == "ok" and changed and before.digest is not None:
            yield "an older release was installed"
        elif kind == "error" and "older than" not in said[1]:
            yield f"an older release was not refused as that: {said}"
        elif kind == "killed":
            yield f"an update was killed by signal {said}"
    newest = partial(rig.follow, state, world.settings, world.releases[4])
    kind, said = rig.in_fork(newest, "after the cut")
    if kind != "ok":
        yield f"the newest release is not installed: {said}"
    kind, said = rig.in_fork(partial(rig.answer, state), "after the cut")
    if (kind, said) != ("ok", 40.0):
        yield f"the newest release does not answer: {said}"


# ---------------------------------------------------------------- the run


def all_cases(world: World, luck: random.Random) -> Iterator[Case]:
    """Yield every state of the long form."""
    yield from cut_cases(world, "new", "update 1")
    for count in range(1, MAX_PROGRAMS + 1):
        yield from cut_cases(world, "first, not started", *["start"] * count)
        yield from cut_cases(world, "second, not started", *["start"] * count)
    for situation in ("first", "second", "second, not started"):
        for others in (0, 1, 3):
            yield from cut_cases(world, situation, "update 3", *["start"] * others)
    for situation in ("first", "second, not started", "second"):
        yield from damage_cases(world, situation)
    for situation in ("first", "second"):
        yield from damaged_then_cut(world, situation, luck, 400)


def some_cases(world: World, luck: random.Random) -> Iterator[Case]:
    """Yield a few of each kind: other ones with another seed."""
    series: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("new", ("update 1",)),
        ("first, not started", ("start",)),
        ("second, not started", ("start",) * MAX_PROGRAMS),
        ("second", ("update 3", "start")),
    )
    for situation, programs in series:
        found = world.situations[situation]
        for step in luck.sample(range(1, 40), 3):
            yield Case(found, f"{' + '.join(programs)}, power cut at {step}", programs, step)
    for situation in ("first", "second"):
        yield from luck.sample(list(damage_cases(world, situation)), 8)
        yield from damaged_then_cut(world, situation, luck, 2)


def torture(cases: Iterator[Case], world: World, seconds: float | None = None) -> int:
    """Run cases; print what did not hold, and return how many did not."""
    began, count, faults = monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="fourways-device-", dir=world.root) as folder:
        for case in cases:
            told = run(world, case, Path(folder))
            count += 1
            faults += bool(told)
            for text in told:
                print(f"FAULT {case.situation.name}: {case.name}: {text}", flush=True)
            if count % 100 == 0:
                print(f"{count} states, {faults} faults, {monotonic() - began:.0f} s", flush=True)
            if seconds is not None and monotonic() - began > seconds:
                break
    print(f"{count} states, {faults} faults, {monotonic() - began:.0f} s", flush=True)
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long form, or a few states; return 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="a few states of each kind")
    seed = random.randrange(2**31)  # noqa: S311
    parser.add_argument("--seed", type=int, default=seed, help="to repeat a run")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}", flush=True)
    random.seed(asked.seed)
    luck = random.Random(asked.seed)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="fourways-torture-") as root:
        world = World(Path(root))
        cases = some_cases(world, luck) if asked.short else all_cases(world, luck)
        return 1 if torture(cases, world, asked.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
