"""What the tests of batch on a cluster share: a store that is slow or full, and ends of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import NAMESPACE, Plant
from tests.kit.waiting import until
from tools.torture import cluster as rig

ENOUGH = 180.0
"""Seconds a run takes at the very most, on a slow machine."""

_FULL = """
    IF NEW.number > 3 THEN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END IF;"""


@contextmanager
def slow_store(plant: Plant, seconds: int = 3) -> Iterator[None]:
    """Have the store take its time to record a part: a run is seen, and met, half-way."""
    with _befallen(plant, f"PERFORM pg_sleep({seconds});"):
        yield


@contextmanager
def full_store(plant: Plant) -> Iterator[None]:
    """Have the store refuse the fifth part of a run and those after as a full disk does."""
    with _befallen(plant, _FULL):
        yield


@contextmanager
def _befallen(plant: Plant, what: str) -> Iterator[None]:
    plant.cluster.sql(
        NAMESPACE,
        f"""
        CREATE FUNCTION befall() RETURNS trigger AS $$ BEGIN {what}
        RETURN NEW; END $$ LANGUAGE plpgsql;
        CREATE TRIGGER befall BEFORE UPDATE ON fourways.chunks FOR EACH ROW
        WHEN (NEW.state = 'done') EXECUTE FUNCTION befall()""",
    )
    try:
        yield
    finally:
        plant.cluster.sql(NAMESPACE, "DROP FUNCTION befall CASCADE")


def last_run(plant: Plant, name: str) -> Json:
    """Return what status says of the latest run; empty while it says nothing."""
    status = plant.deployment(name).get("status") or {}
    found: Json = status.get("lastRun") or {}
    return found


def ended(plant: Plant, job: str, name: str) -> Json:
    """Wait until status tells of a Job's end; return the run."""

    def look() -> Json | None:
        run = last_run(plant, name)
        theirs = run.get("job") or run.get("name")
        return run if theirs == job and run["outcome"] != "Running" else None

    found: Json = until(look, f"the end of {job}", seconds=ENOUGH)
    return found


def outcomes(plant: Plant, *jobs: str) -> list[str]:
    """Wait until Jobs have ended; return how."""

    def look() -> list[str] | None:
        states = [rig.state_of(plant.cluster, NAMESPACE, job) for job in jobs]
        return None if "Running" in states else states

    found: list[str] = until(look, f"the end of {', '.join(jobs)}", seconds=ENOUGH)
    return found


def records(plant: Plant, name: str) -> list[Json]:
    """Return the runs that `fourways list-runs` lists."""
    found: list[Json] = json.loads(plant.fourways("list-runs", name, "-o", "json"))
    return found


def compared(plant: Plant, name: str, before: str, after: str) -> Json:
    """Return what `fourways compare-runs` says two runs differ in."""
    found: Json = json.loads(plant.fourways("compare-runs", name, before, after, "-o", "json"))
    return found
