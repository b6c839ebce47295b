"""Ways of an author to what is not the author's: each is refused, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.torture.authors.__main__ import torture
from tools.torture.authors.way import AIMS, CANARY, Ground, Reached, Stranger, Way, judge


@pytest.mark.thorough
@pytest.mark.timeout(120)
def test_every_way_without_sql_is_refused_by_name(tmp_path: Path) -> None:
    counts, faults = torture(tmp_path, short=True)
    assert faults == []
    assert counts.total() >= 130
    assert counts["database row"] < 3, "SQL needs a server"
    assert all(counts[aim] for aim in AIMS)


def test_what_is_not_refused_by_name_is_found(tmp_path: Path) -> None:
    ground = Ground(tmp_path, Stranger(1))

    def reaches(ground: Ground) -> str:
        raise Reached("the text")

    def asks(ground: Ground) -> str:
        ground.stranger.asked.append("/m")
        return "spec.image: refused"

    def fault_of(refusal: object) -> str:
        return judge(Way("image", "a way", refusal, "spec.image"), ground)  # type: ignore[arg-type]

    assert fault_of(lambda _: "spec.image: refused") == ""
    assert "not refused: the text" in fault_of(reaches)
    assert "the stranger was asked" in fault_of(asks)
    assert "quotes what it protects" in fault_of(lambda _: f"spec.image: {CANARY}")
    assert "does not say 'spec.image'" in fault_of(lambda _: "no")
    assert "no refusal but ZeroDivisionError" in fault_of(lambda _: str(1 / 0))
