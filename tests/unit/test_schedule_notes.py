"""What a schedule and its time zone mean elsewhere than on this machine."""

from __future__ import annotations

import pytest

from fourways_api.cron import step_notes, zone_is_known


@pytest.mark.parametrize("zone", ["localtime", "Factory", "posixrules", "Europe/Nowhere"])
def test_a_zone_that_depends_on_the_machine_is_none(zone: str) -> None:
    assert not zone_is_known(zone)
    assert zone_is_known("Europe/Berlin")
    assert zone_is_known("UTC")


@pytest.mark.parametrize(
    ("schedule", "notes"),
    [
        ("*/90 * * * *", ["*/90 is not every 90 minutes: it is minute 0 of every hour"]),
        ("0 ?/36 * * *", ["?/36 is not every 36 hours: it is hour 0 of every day"]),
        ("*/59 */23 * * *", []),
        ("*/15,5 * * * *", []),
        ("@hourly", []),
    ],
)
def test_a_step_longer_than_its_field_is_told(schedule: str, notes: list[str]) -> None:
    assert step_notes(schedule) == notes
