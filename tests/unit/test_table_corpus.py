"""Tables of the writers that are installed here, each cell with its right outcome.

``make torture-tables`` adds writers of other environments. A file's cells are read as a batch run
reads them and scored as events and as single records: all three must come out as written down.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.torture.tables.cases import CASES, Case
from tools.torture.tables.corpus import faults, layout_faults, written
from tools.torture.tables.layouts import Layout, layouts

SHORT = ("whole", "decimal", "floats-as-whole", "float-null", "whole-into-float32", "text-null")
SHORT += ("text-view", "uuid", "time-zoned", "nested", "list", "bad-whole")


@pytest.mark.parametrize("case", [c for c in CASES if c.name in SHORT], ids=lambda case: case.name)
def test_a_cell_comes_out_alike_by_every_writer_in_batch_and_as_an_event(
    tmp_path: Path, case: Case
) -> None:
    files = written(tmp_path, None, [case])
    assert files
    assert [fault for file in files for fault in faults(file)] == []


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: layout.name)
def test_a_table_of_several_files_or_a_damaged_one(tmp_path: Path, layout: Layout) -> None:
    assert list(layout_faults(layout, tmp_path / "t")) == []
