"""A model format and a table format are each one more entry in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_api.base import SKIP_RULES
from fourways_api.model import ModelFormat, ModelReference
from fourways_runtime.io import sources
from fourways_runtime.io.sources.base import Chunk
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.splits import Split
from fourways_runtime.scoring.table_pipeline import TablePipeline

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "x", "type": "float32"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)


class ToyModel:
    """Adds what its file says."""

    inputs = (Tensor("x", "float32", (None,)),)
    outputs = (Tensor("y", "float32", (None,)),)
    features: tuple[str, ...] = ()

    def __init__(self, added: float) -> None:
        self._added = np.float32(added)

    def predict(self, tensors: Any, *_: Any) -> dict[str, Any]:
        return {"y": tensors["x"] + self._added}


class ToyTable:
    """A table of one line for each record."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def chunks(self) -> Any:
        keys, values = zip(*(line.split("=") for line in self._lines), strict=True)
        batch = pa.RecordBatch.from_pydict({"id": list(keys), "x": [float(v) for v in values]})
        yield Chunk(batch, np.arange(len(keys)))

    def splits(self, rows: int) -> list[Split]:
        return []


def test_every_format_of_the_api_has_an_entry() -> None:
    assert set(models.FORMATS) == set(get_args(ModelFormat))
    told = BatchSource.model_fields["format"].annotation
    assert set(sources.FORMATS) == set(get_args(told))


def test_a_toy_of_each_is_loaded_read_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        models.FORMATS,
        "toy",
        models.Format(lambda request: ToyModel(float(request.path.read_text()))),
    )
    monkeypatch.setitem(
        sources.FORMATS,
        "Toy",
        lambda request: ToyTable(Path(request.source.uri[7:]).read_text().split()),
    )
    (tmp_path / "model").write_text("0.5")
    (tmp_path / "table").write_text("a=1 b=2")
    uri = f"file://{tmp_path}"
    reference = ModelReference(uri=f"{uri}/model", version="1").model_copy(update={"format": "toy"})
    source = BatchSource.model_validate({"uri": f"{uri}/table"}, context=SKIP_RULES).model_copy(
        update={"format": "Toy"}
    )
    table = sources.open_table(source, CONTRACT, policy=FetchPolicy(), paths=Paths())
    pipeline = Pipeline(CONTRACT, models.load(tmp_path / "model", reference, threads=1))
    (chunk,) = table.chunks()
    scored = TablePipeline(pipeline).score(chunk.batch, chunk.rows)
    assert scored.predictions.columns["y"].tolist() == [1.5, 2.5]
