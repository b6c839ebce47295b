"""Texts are ordered letter by letter: a watermark whose order is another one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources.text_order import why_unordered
from fourways_runtime.io.sources.watermarks import highest
from tests.kit.batch_world import World


def told(*texts: str | None, kind: Any = None) -> str | None:
    column = pa.array(texts, kind or pa.string())
    return why_unordered(column, highest(column))


@pytest.mark.parametrize(
    "text",
    [
        "31.12.2025",
        "12/31/2025",
        "1-1-2026 10:00",
        "31 Dec 2025",
        "31-Dez-2025",
        "Dec 31, 2025",
        "Wed, 31 Dec 2025 10:00:00 GMT",
        "2025-9-30",
        "2025/10/1",
    ],
)
def test_dates_that_do_not_sort_are_refused(text: str) -> None:
    assert "not ordered by time" in str(told("", text, None))


@pytest.mark.parametrize(
    "text", ["2025-12-31", "2025-12-31T10:00Z", "20251231", "2025/12/31", "a", "v1.2.3", "007", ""]
)
def test_texts_that_sort_are_watermarks(text: str) -> None:
    assert told(text, None) is None


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), "utf8")])
def test_numbers_of_several_lengths_are_refused(kind: Any) -> None:
    assert "numbers as text" in str(told("9", "10", kind=kind))
    assert told("09", "10", "", None, kind=kind) is None


def test_a_run_names_the_column_and_publishes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")
    world.table(id=["a"], age=[1], spend=[1.0], changed=["31.12.2025"])
    with pytest.raises(SourceError, match=r"column changed: '31\.12\.2025' is a date as text"):
        world.run(batch__incremental={"watermark": "changed"})


def test_truth_values_and_objects_in_json_are_no_watermark(tmp_path: Path) -> None:
    world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")
    source = {"uri": "pvc://data/t.jsonl", "format": "JSONLines"}
    for value, said in (("true", "true"), ('{"$date": "2026-01-01"}', "an object")):
        line = f'{{"id": "a", "age": 1, "spend": 1, "u": {value}}}\n'
        world.file("t.jsonl").write_text(line)
        with pytest.raises(SourceError, match=f"column u holds {said}, which cannot be a"):
            world.run(batch__source=source, batch__incremental={"watermark": "u"})
