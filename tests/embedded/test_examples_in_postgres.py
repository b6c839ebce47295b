"""The batch examples as a cluster runs them: their own tables and models, into PostgreSQL."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fourways_api import RuntimeConfig
from fourways_runtime.io.store import open_run_store
from fourways_runtime.workloads.batch import BatchRun
from tests.kit.stores import look
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


@pytest.fixture
def root(tmp_path: Path, postgres: Server) -> Path:
    (tmp_path / "uri").write_text(postgres.database())
    shutil.copytree(ARTIFACTS, tmp_path / "volumes" / CLAIM)
    return tmp_path


def config(name: str, root: Path) -> RuntimeConfig:
    spec: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["spec"]
    return RuntimeConfig.model_validate(
        {
            "namespace": "n",
            "name": name,
            "model": spec["model"],
            "contract": spec["contract"],
            "batch": spec["batch"],
            "paths": {
                "storeUriFile": str(root / "uri"),
                "volumesRoot": str(root / "volumes"),
                "cacheDir": str(root / "cache"),
                "terminationLog": str(root / "last-words"),
            },
        }
    )


@pytest.mark.parametrize(
    ("name", "rows", "rejects", "key"),
    [
        ("churn", 2349, 8, "01760"),
        ("segmentation", 23_502, 0, "01760"),
        ("sales-forecast", 48, 0, "wine-1994-12"),
        ("recommendations", 671, 0, 42),
    ],
)
async def test_a_run_is_published_and_answers(
    root: Path, name: str, rows: int, rejects: int, key: str | int
) -> None:
    wanted = config(name, root)
    done = BatchRun(wanted, "r1").execute()
    assert (done.rows, done.rejects) == (rows, rejects)
    found = await look((root / "uri").read_text(), "n", [key], name)
    assert found is not None
    answer = found.rows[key]
    assert set(answer) == {output.name for output in wanted.contract.outputs}
    for output in wanted.contract.outputs:
        assert not output.shape or len(answer[output.name]) == output.shape[0]


def test_a_second_night_scores_no_segment_anew(root: Path) -> None:
    for run in ("r1", "r2"):
        BatchRun(config("segmentation", root), run).execute()
    writer = open_run_store((root / "uri").read_text())
    try:
        latest, first = writer.runs("n", "segmentation")
    finally:
        writer.close()
    assert (first.kind, first.carried) == ("full", 0)
    assert (latest.kind, latest.carried, latest.rows) == ("hash", 23_502, 23_502)
