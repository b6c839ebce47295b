"""Drift of devices: found in the sum, and no device makes, hides or repeats it alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from fourways_runtime.scoring import fleet_drift
from fourways_runtime.scoring.device_report import (
    MAX_COUNTED,
    MAX_REPORT_BYTES,
    InvalidReport,
    Tally,
    encode,
    profile_of,
    read_report,
)
from fourways_runtime.scoring.fleet_drift import (
    LEAST_RECORDS,
    FleetFinding,
    FleetReports,
    judge,
    weights_of,
)
from fourways_runtime.scoring.profile import RecordProfiler
from tests.kit.drift_tables import DRIFTS, Table, outputs_of, profiler, table

DIGEST = "sha256:" + "a" * 64
DEVICE = "0123456789abcdef"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
KNOWN = profiler()

Seeded = Callable[[Table, np.random.Generator], None]


def told(columns: Table, sequence: int = 1, device: str = DEVICE, rejects: int = 0) -> bytes:
    counts = KNOWN.count(columns, outputs_of(columns), rejects=rejects)
    return encode(Tally.of(counts, KNOWN), DIGEST, device, sequence)


def keep(fleet: FleetReports, caller: str, raw: bytes, at: float = 0.0) -> None:
    document, digest = profile_of(raw)
    assert digest == DIGEST
    fleet.take(caller, read_report(document, KNOWN), at)


def records(seed: int, rows: int, change: Seeded | None = None) -> Table:
    random = np.random.default_rng(seed)
    columns = table(random, rows)
    if change is not None:
        change(columns, random)
    return columns


def fleet_of(devices: dict[str, Table], known: RecordProfiler = KNOWN) -> FleetReports:
    fleet = FleetReports(DIGEST, known)
    for caller, columns in devices.items():
        keep(fleet, caller, told(columns))
    return fleet


def found(fleet: FleetReports, since: float = -1.0, max_drift: float = 0.2) -> FleetFinding:
    return judge(KNOWN, fleet.present(since), max_drift, NOW)


def drifted(finding: FleetFinding) -> list[str]:
    return [each.name for each in finding.fields if each.drifted]


@pytest.mark.parametrize("name", DRIFTS)
def test_a_seeded_drift_of_many_small_devices_is_found_in_its_field_alone(name: str) -> None:
    """None of them has enough records to be judged by."""
    field, change = DRIFTS[name]
    devices = {f"d{n}": records(n, 25, change) for n in range(40)}
    finding = found(fleet_of(devices))
    assert drifted(finding) == [field]
    assert finding.devices == 40
    assert finding.status is not None
    assert (finding.status.records, finding.status.drifted) == (1_000, 1)


@pytest.mark.parametrize("seed", range(20))
def test_quiet_fleets_of_every_size_give_no_alarm(seed: int) -> None:
    random = np.random.default_rng(seed)
    for devices in (1, 2, 5, 30):
        sizes = random.geometric(1 / random.integers(5, 500), devices)
        fleet = fleet_of({f"d{n}": table(random, int(size)) for n, size in enumerate(sizes)})
        assert drifted(found(fleet, max_drift=0.1)) == []


def test_one_device_alone_is_judged_by_its_own_records() -> None:
    field, change = DRIFTS["a shift by one deviation"]
    assert drifted(found(fleet_of({"only": records(1, 500, change)}))) == [field]
    # The other one has too few records to say otherwise.
    two = {"one": records(1, 500, change), "idle": records(2, 5)}
    assert drifted(found(fleet_of(two))) == [field]


@pytest.mark.parametrize("rows", [500, 1_000_000])
def test_one_device_cannot_raise_an_alarm_against_the_others(rows: int) -> None:
    quiet = {f"d{n}": records(n, 200) for n in range(5)}
    fleet = fleet_of(quiet)
    broken = records(9, 500, DRIFTS["a sensor that stands still"][1])
    document = json.loads(told(broken))
    times = rows // 500
    document["records"] = rows
    for side in ("inputs", "outputs"):
        document[side] = [[count * times for count in field] for field in document[side]]
    keep(fleet, "hostile", json.dumps(document).encode())
    finding = found(fleet)
    assert drifted(finding) == []
    assert max(each.psi for each in finding.fields) > 0.2, "it is shown, and is no alarm"
    keep(fleet, "second", told(broken))
    assert drifted(found(fleet)) == ["price"], "two agree"


def test_one_device_cannot_hide_a_drift_of_the_others() -> None:
    field, change = DRIFTS["a shift by one deviation"]
    fleet = fleet_of({f"d{n}": records(n, 200, change) for n in range(5)})
    assert drifted(found(fleet)) == [field]
    document = json.loads(told(records(8, 1_000)))
    document["records"] = MAX_COUNTED
    for side in ("inputs", "outputs"):
        document[side] = [[count * 1_000_000 for count in each] for each in document[side]]
    keep(fleet, "hostile", json.dumps(document).encode())
    assert drifted(found(fleet)) == [field]


def test_devices_that_share_credentials_weigh_as_one() -> None:
    """So nobody gains weight by inventing devices."""
    fleet = fleet_of({f"d{n}": records(n, 200) for n in range(5)})
    broken = records(9, 500, DRIFTS["a sensor that stands still"][1])
    for device in range(50):
        keep(fleet, "hostile", told(broken, device=f"{device:016x}"))
    finding = found(fleet)
    assert finding.devices == 55
    assert drifted(finding) == []
    assert finding.status is not None
    assert finding.status.records <= 1_000 + max(LEAST_RECORDS, 4 * 200)


def test_one_device_cannot_decide_the_share_of_rejects() -> None:
    fleet = fleet_of({f"d{n}": records(n, 200) for n in range(9)})
    keep(fleet, "hostile", told(records(9, 1), rejects=MAX_COUNTED))
    status = found(fleet).status
    assert status is not None
    assert 0.2 < status.rejects < 0.35
    keep(fleet, "broken", told(records(9, 0), rejects=50))
    assert found(fleet).devices == 11


def test_what_a_caller_weighs() -> None:
    assert weights_of(np.array([10.0])).tolist() == [1.0]
    assert weights_of(np.array([10_000.0] * 3)).tolist() == [1.0] * 3
    assert weights_of(np.array([20.0, 20.0, 10_000.0])).tolist() == [1.0, 1.0, 0.05]
    assert weights_of(np.array([1_000.0, 1_000.0, 10_000.0])).tolist() == [1.0, 1.0, 0.4]


def test_the_same_report_twice_counts_once_and_an_older_one_not_at_all() -> None:
    fleet = FleetReports(DIGEST, KNOWN)
    first, second = told(records(1, 100), 1), told(records(2, 300), 2, rejects=100)
    for raw in (first, first, second, second, first):
        keep(fleet, "d", raw)
    finding = found(fleet)
    assert finding.devices == 1
    assert finding.status is not None
    assert finding.status.records == 300
    assert finding.status.rejects == 0.25


def test_a_report_counts_for_a_window_after_it_arrived() -> None:
    fleet = FleetReports(DIGEST, KNOWN)
    keep(fleet, "early", told(records(1, 100)), at=10.0)
    keep(fleet, "late", told(records(2, 200)), at=50.0)
    for since, rows, devices in ((5.0, 300, 2), (10.0, 200, 1), (60.0, None, 0)):
        finding = found(fleet, since)
        assert finding.devices == devices
        assert (finding.status.records if finding.status else None) == rows


def test_too_few_records_are_not_judged() -> None:
    assert found(fleet_of({})).status is None
    assert found(fleet_of({"d": records(1, 30)})).status is None
    nothing = fleet_of({"d": records(1, 0)})
    assert found(nothing) == FleetFinding(devices=1)


def test_a_caller_that_invents_devices_pushes_out_its_own_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet_drift, "MOST_REPORTS", 5)
    fleet = fleet_of({"a": records(1, 50), "b": records(2, 60)})
    for device in range(20):
        keep(fleet, "hostile", told(records(3, 70), device=f"{device:016x}"))
    kept = fleet.present(-1.0)
    assert sorted(it.caller for it in kept) == ["a", "b", "hostile", "hostile", "hostile"]
    assert {it.report.device for it in kept if it.caller == "hostile"} == {
        f"{device:016x}" for device in (17, 18, 19)
    }
    keep(fleet, "c", told(records(4, 80)))
    assert {it.caller for it in fleet.present(-1.0)} == {"a", "b", "c", "hostile"}


def test_many_devices_of_a_wide_profile_take_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    width = sum(each.bins for each in (*KNOWN.inputs, *KNOWN.outputs))
    monkeypatch.setattr(fleet_drift, "MOST_BYTES", 4 * width * 3)
    fleet = fleet_of({f"d{n}": records(n, 10) for n in range(10)})
    assert [it.caller for it in fleet.present(-1.0)] == ["d7", "d8", "d9"]


def test_a_report_holds_counts_and_no_value_or_name() -> None:
    raw = told(records(1, 100))
    document = json.loads(raw)
    assert set(document) == {
        "version", "profile", "device", "sequence", "records", "rejects", "inputs", "outputs",
    }  # fmt: skip
    for secret in (b"alcohol", b"red", b"white", b"price"):
        assert secret not in raw
    assert all(type(count) is int for field in document["inputs"] for count in field)


def test_the_largest_honest_report_is_taken() -> None:
    widest = 512 * 66 * len(f"{MAX_COUNTED},")
    assert widest + 512 * 4 + 500 < MAX_REPORT_BYTES


HOSTILE: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d.update(version=2), "version: must be 1"),
    (lambda d: d.update(profile="sha256:x"), "profile: must be a sha256 digest"),
    (lambda d: d.update(profile=None), "profile: must be a sha256 digest"),
    (lambda d: d.update(device="<b>me</b>"), "device: must be 16 hexadecimal digits"),
    (lambda d: d.update(device=7), "device: must be 16 hexadecimal digits"),
    (lambda d: d.update(sequence=-1), "sequence: must be a whole number"),
    (lambda d: d.update(sequence=2**60), "sequence: must be a whole number"),
    (lambda d: d.update(records=1e300), "records: must be a whole number"),
    (lambda d: d.update(records=True), "records: must be a whole number"),
    (lambda d: d.update(records=MAX_COUNTED + 1), "records: must be a whole number"),
    (lambda d: d.update(rejects=-5), "rejects: must be a whole number"),
    (lambda d: d.pop("rejects"), "rejects: must be a whole number"),
    (lambda d: d.update(inputs=None), "inputs: must have 5 lists"),
    (lambda d: d["inputs"].pop(), "inputs: must have 5 lists"),
    (lambda d: d["inputs"].append([]), "inputs: must have 5 lists"),
    (lambda d: d["inputs"].__setitem__(0, {"a": 1}), "inputs: alcohol must have"),
    (lambda d: d["inputs"][0].append(0), "inputs: alcohol must have"),
    (lambda d: d["outputs"][0].__setitem__(0, -1), "outputs: risk: counts are whole numbers"),
    (lambda d: d["outputs"][0].__setitem__(0, 0.5), "outputs: risk: counts are whole numbers"),
    (lambda d: d["outputs"][0].__setitem__(0, "9"), "outputs: risk: counts are whole numbers"),
    (lambda d: d["outputs"][0].__setitem__(0, 101), "outputs: risk: counts are whole numbers"),
    (
        lambda d: d["outputs"].__setitem__(0, [100] * len(d["outputs"][0])),
        "risk counts more than there are records",
    ),
]


@pytest.mark.parametrize(("change", "fault"), HOSTILE)
def test_a_hostile_report_is_refused_by_field(
    change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    document = json.loads(told(records(1, 100)))
    change(document)
    with pytest.raises(InvalidReport, match=fault):
        read_report(profile_of(json.dumps(document).encode())[0], KNOWN)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b"NaN", b"[" * 100_000, b" " * (2**19 + 1)]
)
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidReport):
        profile_of(raw)
