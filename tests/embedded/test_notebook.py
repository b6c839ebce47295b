"""The notebook of the examples runs as it is written, in one process as in a kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fourways_cli.manifests import read_deployments

pytestmark = pytest.mark.embedded

NOTEBOOK = Path(__file__).parents[2] / "examples" / "own-model.ipynb"


def test_the_notebook_trains_serves_and_asks_a_model(tmp_path: Path) -> None:
    document = json.loads(NOTEBOOK.read_text("utf-8"))
    cells = [each for each in document["cells"] if each["cell_type"] == "code"]
    assert all(each["outputs"] == [] for each in cells), "outputs are not committed"
    script = "\n".join("".join(each["source"]) for each in cells)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "the server agrees with the model: True" in done.stdout
    (deployment,) = read_deployments([tmp_path / "wine.yaml"])
    assert deployment.metadata.name == "wine"
