"""What examples/prepare.py makes of the files that are committed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.kit.examples import EXAMPLES, digest, magika_model, vectors

pytestmark = pytest.mark.embedded


def prepare(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "prepare.py"), "--artifacts", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is committed, completed."""
    magika_model()  # skips without the package
    folder = tmp_path_factory.mktemp("examples") / "artifacts"
    for example in (EXAMPLES / "artifacts").iterdir():
        made = ["shop.*", "golden.parquet"]
        made += ["model.onnx", "source.parquet"] if example.name == "file-type" else []
        shutil.copytree(example, folder / example.name, ignore=shutil.ignore_patterns(*made))
    done = prepare(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_prepare_completes_the_folder_and_is_idempotent(prepared: Path) -> None:
    files = [path for path in prepared.rglob("*") if path.is_file()]
    made = {path: digest(path) for path in files}
    table = pq.read_table(prepared / "file-type/source.parquet")
    assert table.num_rows > 100
    assert {len(content) for content in table["content"].to_pylist()} == {2048}

    assert prepare(prepared).returncode == 0
    assert made == {path: digest(path) for path in files}


def test_prepare_makes_the_shop_s_database_and_its_secret(prepared: Path) -> None:
    uri = (prepared.parent / "secrets/shop-database/uri").read_text("utf-8")
    assert uri.startswith("sqlite:///")
    script = (prepared / "come-back/shop.sql").read_text("utf-8")
    with (
        closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as given,
        closing(sqlite3.connect(":memory:")) as told,
    ):
        told.executescript(script)
        rows = [
            sorted(database.execute("SELECT * FROM customer_history"), key=lambda row: row[0])
            for database in (given, told)
        ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2357


def test_prepare_makes_a_table_of_churn_s_golden_vectors(prepared: Path) -> None:
    rows = pq.read_table(prepared / "churn/golden.parquet").to_pylist()
    assert [row.pop("customer_id") for row in rows] == [f"golden-{i:02}" for i in range(20)]
    assert rows == [vector["inputs"] for vector in vectors("churn")]


def test_prepare_names_a_file_that_is_not_the_pinned_one(tmp_path: Path) -> None:
    magika_model()
    folder = tmp_path / "artifacts"
    shutil.copytree(EXAMPLES / "artifacts", folder)
    with (folder / "churn/model.onnx").open("ab") as file:
        file.write(b"x")

    done = prepare(folder)
    assert done.returncode == 1
    assert "churn/model.onnx" in done.stderr
    assert "churn.yaml pins" in done.stderr
