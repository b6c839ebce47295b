"""What a device tells of its records: counts by bin of the profile in its bundle, and no value.

Owns the format, version 1, which the agent sends and the gateway reads. The lists are in the
profile's order, so no name travels either::

    {"version": 1, "profile": "sha256:…", "device": "91b2…", "sequence": 12,
     "records": 400, "rejects": 3, "inputs": [[120, 280, 0]], "outputs": [[390, 7, 0]]}

A report holds the device's whole window, not what is new since the last one. So whoever keeps the
latest report of each device counts no record twice, whatever is lost, repeated or late.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from .columns import Array
from .profile import FieldCounter, ProfileCounts, RecordProfiler

VERSION = 1
MAX_REPORT_BYTES = 1 << 19
"""Maximum size of a report. One of the largest profile, with counts of ten digits, is smaller."""

MAX_COUNTED = 10**9
"""Maximum number of records, and of rejects, in a report."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DEVICE = re.compile(r"[0-9a-f]{16}")


class InvalidReport(ValueError):
    """A report that breaks the format; ``str()`` names the field and the fault, never a value."""


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """The window of one device."""

    profile: str
    """Digest of the profile that the records were counted by."""

    device: str
    """Which of the devices with the same credentials it is: 16 hexadecimal digits, by chance."""

    sequence: int
    """Grows with each report of a device."""

    records: int
    rejects: int
    values: Array
    """Counts (W,), float32: the bins of all inputs, then of all outputs, in the profile's order."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts by position in a profile: of records, of rejects, and by side, field and bin."""

    records: float = 0.0
    rejects: float = 0.0
    inputs: tuple[tuple[float, ...], ...] = ()
    outputs: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def of(cls, counts: ProfileCounts, profiler: RecordProfiler) -> Tally:
        """Return counts in the profile's order."""

        def ordered(fields: Sequence[FieldCounter], found: dict[str, Array]) -> Bins:
            return tuple(tuple(found.get(f.name, np.zeros(f.bins)).tolist()) for f in fields)

        return cls(
            counts.records,
            counts.rejects,
            ordered(profiler.inputs, counts.inputs),
            ordered(profiler.outputs, counts.outputs),
        )

    def plus(self, other: Tally) -> Tally:
        """Return the sum of two tallies of one profile."""
        return Tally(
            self.records + other.records,
            self.rejects + other.rejects,
            _sum(self.inputs, other.inputs),
            _sum(self.outputs, other.outputs),
        )

    def __bool__(self) -> bool:
        """Whether anything was counted."""
        return self.records > 0 or self.rejects > 0


Bins = tuple[tuple[float, ...], ...]


def _sum(one: Bins, other: Bins) -> Bins:
    if not one or not other:
        return one or other
    pairs = zip(one, other, strict=True)
    return tuple(tuple(a + b for a, b in zip(*pair, strict=True)) for pair in pairs)


def encode(tally: Tally, profile: str, device: str, sequence: int) -> bytes:
    """Return the report of these counts; if there are too many, of as many as a report holds."""
    part = min(1.0, MAX_COUNTED / max(1.0, tally.records, tally.rejects))
    return orjson.dumps(
        {
            "version": VERSION,
            "profile": profile,
            "device": device,
            "sequence": sequence,
            "records": round(tally.records * part),
            "rejects": round(tally.rejects * part),
            "inputs": [[round(count * part) for count in field] for field in tally.inputs],
            "outputs": [[round(count * part) for count in field] for field in tally.outputs],
        }
    )


def profile_of(raw: bytes) -> tuple[dict[str, Any], str]:
    """Return a report as a document, and the digest of its profile. Raises InvalidReport."""
    if len(raw) > MAX_REPORT_BYTES:
        raise InvalidReport(f"the report is larger than {MAX_REPORT_BYTES >> 10} KiB")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise InvalidReport("the report is not JSON") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise InvalidReport(f"version: must be {VERSION}; update the agent or the gateway")
    return document, _text(document, "profile", _DIGEST, "a sha256 digest")


def read_report(document: dict[str, Any], profiler: RecordProfiler) -> DeviceReport:
    """Check a report against the profile that it names. Raises InvalidReport."""
    records = _whole(document, "records", MAX_COUNTED)
    sides = [
        _bins(document, side, fields, records)
        for side, fields in (("inputs", profiler.inputs), ("outputs", profiler.outputs))
    ]
    return DeviceReport(
        profile=str(document["profile"]),
        device=_text(document, "device", _DEVICE, "16 hexadecimal digits"),
        sequence=_whole(document, "sequence", 2**53),
        records=records,
        rejects=_whole(document, "rejects", MAX_COUNTED),
        values=np.concatenate([np.zeros(0, np.float32), *(row for side in sides for row in side)]),
    )


def _text(document: dict[str, Any], field: str, pattern: re.Pattern[str], what: str) -> str:
    found = document.get(field)
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise InvalidReport(f"{field}: must be {what}")
    return found


def _whole(document: dict[str, Any], field: str, most: int) -> int:
    found = document.get(field)
    if type(found) is not int or not 0 <= found <= most:
        raise InvalidReport(f"{field}: must be a whole number from 0 to {most}")
    return found


def _bins(
    document: dict[str, Any], side: str, fields: Sequence[FieldCounter], records: int
) -> list[Array]:
    found = document.get(side)
    if not records and found == []:  # the end of a window
        return [np.zeros(each.bins, np.float32) for each in fields]
    if not isinstance(found, list) or len(found) != len(fields):
        raise InvalidReport(f"{side}: must have {len(fields)} lists, one for each in the profile")
    rows = []
    for each, counts in zip(fields, found, strict=True):
        if not isinstance(counts, list) or len(counts) != each.bins:
            raise InvalidReport(f"{side}: {each.name} must have {each.bins} counts")
        if not all(type(count) is int and 0 <= count <= records for count in counts):
            raise InvalidReport(f"{side}: {each.name}: counts are whole numbers up to records")
        # A record is in one bin. Sampled counts were rounded, so a few more are no fault.
        if sum(counts) > records + each.bins:
            raise InvalidReport(f"{side}: {each.name} counts more than there are records")
        rows.append(np.array(counts, np.float32))
    return rows
