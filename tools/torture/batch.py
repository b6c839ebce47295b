"""Kill batch workers at random moments, repeatedly, and compare what they publish.

``python -m tools.torture.batch [--short] [--store S] [--sink S] [--disturb D] [--workers N] …``

A table with good rows, bad rows and repeated keys is scored once without disturbances. Then workers
score it under new names while they are disturbed at random moments, until the planned number of
disturbances is reached:

* kill: a worker gets SIGKILL and is restarted;
* term: a worker gets SIGTERM, as when its node is drained. It must end within the grace period with
  the right exit code (or 0 if it was publishing), and leave no chunk claimed;
* restart: the store's server is stopped and restarted.

Each run must equal the first one exactly, bit by bit, and no recorded chunk may be scored again.
Without options, all stores, sinks and numbers of workers are tested; each option restricts them.
Exits with 1 and names the differences if a run differs.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.process import EXIT_TERMINATED
from tools.servers.postgres import Server

from .batch_rig import DEPLOYMENT, NAMESPACE, Rig
from .witness import Broken, Outcome, check_equal

GRACE_SECONDS = 30.0
"""Time that Kubernetes gives a pod between SIGTERM and SIGKILL, in seconds."""

_RUN_SECONDS = 240.0
_PER_RUN = 6
"""Disturbances per run, so that several runs are published."""

_UNAVAILABLE = StoreUnavailable.exit_code
_PROGRESS = """
    SELECT count(*), coalesce(sum(CASE WHEN c.state = 'done' THEN 1 ELSE 0 END), 0),
    count(DISTINCT CASE WHEN c.state = 'claimed' THEN c.owner END)
    FROM @chunks c JOIN @runs r ON r.id = c.run_id
    WHERE r.namespace = ? AND r.deployment = ? AND r.name = ?"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario: what is disturbed, and how often."""

    store: str = "postgresql"
    """postgresql, sqlite, or the URI of a PostgreSQL database."""

    sink: str = ""
    disturb: str = "kill"
    workers: int = 2
    times: int = 25
    rows: int = 200_000
    seed: int = 1

    def __str__(self) -> str:
        """Return a short description."""
        store = self.store.partition(":")[0]
        where = f"{store} and {self.sink}" if self.sink else store
        return f"{where}, {self.workers} at work, {self.disturb}"


@dataclass
class Torture:
    """Workers of one scenario, while they are disturbed."""

    scenario: Scenario
    rig: Rig
    server: Server | None
    chance: random.Random
    done: int = 0

    def undisturbed(self) -> Outcome:
        """Score the table undisturbed; return its predictions and rejects."""
        worker = self.rig.start("calm", 0)
        if worker.wait(_RUN_SECONDS) != 0:
            raise Broken(f"the undisturbed run failed: {self.rig.last_words(0)}")
        return self.rig.outcome("calm")

    def disturbed(self, run: str, times: int) -> Outcome:
        """Score the table while workers are disturbed, up to ``times`` times."""
        self.rig.witness.begin()
        processes = [self.rig.start(run, index) for index in range(self.scenario.workers)]
        deadline = time.monotonic() + _RUN_SECONDS
        try:
            while time.monotonic() < deadline:
                victim = self.chance.randrange(self.scenario.workers)
                if times:
                    self._await_moment(run, processes[victim])
                else:
                    with suppress(subprocess.TimeoutExpired):
                        processes[victim].wait(0.2)
                self.rig.witness.compare(run)
                codes = [process.poll() for process in processes]
                if times and codes[victim] is None:
                    times -= 1
                    self.done += 1
                    self._disturb(run, processes, victim)
                elif not any(code is None for code in codes) and 0 in codes:
                    self.rig.witness.compare(run)
                    return self.rig.outcome(run)
                self._replace_lost(run, processes)
            raise Broken(f"run {run} did not end in {_RUN_SECONDS:g} s")
        finally:
            for process in processes:
                process.kill()
                process.wait()

    def _await_moment(self, run: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a random moment, or one shortly after some or all chunks are recorded."""
        if self.chance.random() < 0.3:
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.chance.uniform(0.0, 2.0))
            return
        more = self.chance.choice((1, 1, 2, 5, None))
        wanted: int | None = None
        patience = time.monotonic() + 20.0
        while process.poll() is None and time.monotonic() < patience:
            chunks, recorded, _ = self._progress(run)
            if wanted is None:
                wanted = recorded + more if more else None
            if chunks and recorded >= min(chunks, wanted or chunks):
                break
            time.sleep(0.02)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.chance.uniform(0.0, 0.3))

    def _disturb(self, run: str, processes: list[subprocess.Popen[bytes]], victim: int) -> None:
        process = processes[victim]
        if self.scenario.disturb == "restart":
            assert self.server is not None  # noqa: S101  (see scenarios)
            self.rig.close()
            self.server.stop()
            time.sleep(self.chance.uniform(0.0, 1.0))
            self.server.start()
            return
        if self.scenario.disturb == "kill":
            process.kill()
            process.wait()
        else:
            self._terminate(run, process, victim)
        processes[victim] = self.rig.start(run, victim)

    def _terminate(self, run: str, process: subprocess.Popen[bytes], victim: int) -> None:
        process.terminate()
        try:
            code = process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise Broken(f"a worker was still running {GRACE_SECONDS:g} s after SIGTERM") from None
        if code not in (0, EXIT_TERMINATED, -signal.SIGTERM):  # the last: hardly started
            raise Broken(f"SIGTERM ended a worker with {code}: {self.rig.last_words(victim)}")
        _, _, claiming = self._progress(run)
        if claiming > self.scenario.workers - 1:
            raise Broken("a worker that was told to end has left a chunk claimed")

    def _replace_lost(self, run: str, processes: list[subprocess.Popen[bytes]]) -> None:
        """Restart workers that ended because the store was unavailable, as their Job would."""
        for index, process in enumerate(processes):
            code = process.poll()
            if code in (None, 0):
                continue
            if self.scenario.disturb != "restart" or code != _UNAVAILABLE:
                raise Broken(f"a worker ended with {code}: {self.rig.last_words(index)}")
            processes[index] = self.rig.start(run, index)

    def _progress(self, run: str) -> tuple[int, int, int]:
        ((chunks, recorded, claiming),) = self.rig.rows(_PROGRESS, (NAMESPACE, DEPLOYMENT, run))
        return int(chunks), int(recorded), int(claiming)


def torture(scenario: Scenario, folder: Path, server: Server | None = None) -> str:
    """Disturb workers in as many runs as necessary; return a one-line summary.

    ``server`` is the folder of the scenario's PostgreSQL, unless an address is given.

    Raises:
        Broken: an invariant is violated.
    """
    uri = scenario.store
    if uri == "sqlite":
        uri = f"sqlite:///{folder}/store.db"
    elif server is not None:
        uri = server.database()
    with closing(Rig(folder, uri, sink=scenario.sink, rows=scenario.rows)) as rig:
        chance = random.Random(scenario.seed)  # noqa: S311
        torture = Torture(scenario, rig, server, chance)
        calm = torture.undisturbed()
        if not (calm[0] and calm[1]):
            raise Broken("the table gives no predictions or no rejects")
        runs = 0
        while torture.done < scenario.times:
            runs += 1
            times = min(_PER_RUN, scenario.times - torture.done)
            wild = torture.disturbed(f"wild-{scenario.seed}-{runs}", times)
            check_equal(calm, wild)
    return (
        f"{torture.done} times in {runs} runs of {len(calm[0])} predictions and "
        f"{len(calm[1])} rejects: each equal to the undisturbed run, no recorded chunk touched"
    )


def scenarios(given: argparse.Namespace) -> Iterator[Scenario]:
    """Return the scenarios that the options select."""
    base = Scenario(times=given.times, rows=given.rows, seed=given.seed)
    if given.short:
        base = replace(base, times=4, rows=60_000)
    everything = [
        *(Scenario(store, workers=n) for n in (1, 2) for store in ("postgresql", "sqlite")),
        *(Scenario(sink=sink) for sink in ("Parquet", "Delta", "table")),
        *(Scenario(store, disturb="term") for store in ("postgresql", "sqlite")),
        Scenario(disturb="term", sink="table"),
        Scenario(disturb="restart", times=10),
        Scenario(disturb="restart", sink="table", times=10),
    ]
    if given.short:
        everything = [everything[at] for at in (1, 2, 6, 7, 10)]
    wanted = {
        name: getattr(given, name)
        for name in ("store", "sink", "disturb", "workers")
        if getattr(given, name) is not None
    }
    if wanted:
        everything = [Scenario(**wanted)]
    for each in everything:
        yield replace(each, times=min(base.times, each.times), rows=base.rows, seed=base.seed)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description="Disturb batch workers and compare what they publish"
    )
    parser.add_argument("--short", action="store_true", help="a few of each, in about a minute")
    parser.add_argument("--store", help="postgresql, sqlite, or the URI of a PostgreSQL database")
    parser.add_argument("--sink", choices=("", "Parquet", "Delta", "table"))
    parser.add_argument("--disturb", choices=("kill", "term", "restart"))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--times", type=int, default=25)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    broken = 0
    with ExitStack() as stack:
        server: Server | None = None
        for scenario in scenarios(given):
            if scenario.store == "postgresql" and server is None:
                server = Server()
                stack.callback(server.remove)
                server.start()
            ours = server if scenario.store == "postgresql" else None
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="fourways-torture-") as name:
                try:
                    said = torture(scenario, Path(name), ours)
                except (Broken, StoreUnavailable) as error:
                    broken += 1
                    said = f"BROKEN: {error}"
            seconds = time.monotonic() - begun
            print(f"{scenario} (seed {scenario.seed}, {seconds:.0f} s): {said}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
