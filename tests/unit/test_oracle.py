"""Schedules and images, held to the Go modules that Kubernetes reads them with (tests/oracle)."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fourways_api.addresses import Image
from fourways_api.cron import CRON_PATTERN, clock_change_notes, next_time
from fourways_api.wording import pattern_of
from tests.oracle.update import ANSWERS, questions

ENTRIES: list[dict[str, Any]] = [json.loads(line) for line in ANSWERS.read_text().splitlines()]
SCHEDULES = [entry for entry in ENTRIES if "schedule" in entry]
IMAGES = [entry for entry in ENTRIES if "image" in entry]


def test_the_answers_are_to_the_questions_of_today() -> None:
    asked = questions()
    without = [{k: v for k, v in each.items() if k != "times"} for each in SCHEDULES]
    assert without == asked["schedules"]
    assert [each["image"] for each in IMAGES] == [each["image"] for each in asked["images"]]


def following(schedule: str, zone: str, after: str, count: int) -> list[str]:
    at, found = datetime.fromisoformat(after), []
    for _ in range(count):
        due = next_time(schedule, zone, at)
        if due is None:
            break
        at = due
        found.append(f"{at:%Y-%m-%dT%H:%M:%SZ}")
    return found


@pytest.mark.parametrize("schedule", sorted({each["schedule"] for each in SCHEDULES}))
def test_runs_are_due_when_the_controller_starts_them(schedule: str) -> None:
    assert re.search(CRON_PATTERN, schedule)
    for each in SCHEDULES:
        if each["schedule"] == schedule:
            found = following(schedule, each["zone"], each["after"], each["count"])
            assert found == each["times"], each


def test_images_are_those_the_kubelet_parses() -> None:
    pattern = pattern_of(Image)
    for each in IMAGES:
        image, valid = each["image"], each["valid"]
        ours = bool(re.search(pattern, image)) and not re.fullmatch("[0-9a-f]{64}", image)
        # Stricter than the parser: a port that no server has.
        assert ours == (valid and ":0/" not in image), image


def test_a_schedule_that_never_comes_ends() -> None:
    now = datetime(2026, 11, 29, tzinfo=UTC)
    assert next_time("0 0 31 2 *", "Europe/Berlin", now) is None


@pytest.mark.parametrize(
    ("schedule", "zone", "notes"),
    [
        (
            "30 2 * * *",
            "Europe/Berlin",
            [
                "2027-03-28 02:30 does not exist, so that run is skipped (clocks change in"
                " Europe/Berlin)",
                "2027-10-31 02:30 comes twice, and so does the run (clocks change in"
                " Europe/Berlin)",
            ],
        ),
        ("0 3 * * *", "Europe/Berlin", []),
        ("0 * * * *", "Europe/Berlin", []),
        ("30 2 * * *", "Etc/UTC", []),
        ("0 2 * * 1", "Europe/Berlin", []),
    ],
)
def test_runs_that_a_clock_change_skips_or_doubles(
    schedule: str, zone: str, notes: list[str]
) -> None:
    now = datetime(2026, 11, 29, 12, 10, tzinfo=UTC)
    assert clock_change_notes(schedule, zone, now) == notes
    for note in notes:
        # What is said is what happens.
        local = datetime.fromisoformat(note[:16])
        day = (local - timedelta(days=2)).isoformat() + "Z"
        due = following(schedule, zone, day, 6)
        on_the_day = [d for d in due if d.startswith(f"{local:%Y-%m-%d}")]
        assert len(on_the_day) == (2 if "twice" in note else 0), due
