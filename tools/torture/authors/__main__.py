"""Try every way of an author to what is not the author's; exits with 1 if one is not refused.

``python -m tools.torture.authors [--short]``; ``--short`` leaves out the ways with SQL, which need
a PostgreSQL.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tools.servers import postgres

from . import files, hosts, manifests, rows
from .way import AIMS, Ground, judge, stranger


def torture(folder: Path, short: bool = False) -> tuple[Counter[str], list[str]]:
    """Try all ways; return how many there are by their aim, and what is wrong."""
    with ExitStack() as stack:
        ground = Ground(folder, stack.enter_context(stranger()))
        tried = [*manifests.ways(), *hosts.ways(), *files.ways()]
        if not short:
            server = stack.enter_context(postgres.running())
            ground = Ground(folder, ground.stranger, server.database())
            rows.lay_out(ground.database)
            tried += rows.ways()
        files.lay_out(ground)
        faults = [fault for way in tried if (fault := judge(way, ground))]
        faults += allowed(ground)
    return Counter(way.aim for way in tried), faults


def allowed(ground: Ground) -> list[str]:
    """Return what is refused although it is the author's own: the ways would show nothing."""
    faults = [
        f"a manifest of mode {mode} is refused: {said}"
        for mode in ("batch", "realtime", "streaming", "edge")
        if (said := manifests.admitted(mode, {}))
    ]
    if said := manifests.admitted("batch", manifests.PYTHON):
        faults.append(f"an image of one's own is refused: {said}")
    listed = {**manifests.RUNTIME, "spec.model.uri": "https://models.example/m"}
    if said := manifests.admitted("realtime", listed):
        faults.append(f"a listed host is refused: {said}")
    if ground.database:
        told = {"query": {"database": {"secretName": "mine"}, "sql": rows.OWN}}
        if len(rows.read(ground, told)) == 0:
            faults.append("one's own rows are not read")
    return faults


def main(arguments: Sequence[str]) -> int:
    """Parse the options, try, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="without SQL")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fourways-authors-") as folder:
        counts, faults = torture(Path(folder), options.short)
    told = ", ".join(f"{aim} {counts[aim]}" for aim in AIMS if counts[aim])
    print(f"{counts.total()} ways ({told}): {len(faults)} not refused by name")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
