"""What people read first names the cause and the fix: a list of faults, of which there are many."""

from __future__ import annotations

import pytest

from tests.kit.faults import Seeded, seeded

FAULTS = list(seeded())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_first_sentence_names_the_cause_and_the_fix(fault: Seeded) -> None:
    assert fault.cause
    assert fault.cause in fault.first_sentence
    assert fault.fix
    assert fault.fix in fault.first_sentence


def test_there_are_a_hundred_of_them() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({fault.told for fault in FAULTS}) >= 100
