"""The server of the ClusterServingRuntime: a folder as KServe leaves it becomes a served model."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skops.io
import xgboost
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from fourways_cli.embedded.ports import free_port
from tests.kit.litert import dense
from tests.kit.waiting import until

pytestmark = pytest.mark.embedded

NAME = "1-wines"
"""KServe takes names that a ModelDeployment may not have."""

WINES = load_wine()


def write_skops(folder: Path) -> None:
    model = LogisticRegression(max_iter=10_000).fit(WINES.data, WINES.target)
    skops.io.dump(model, folder / "model.skops")


def write_xgboost(folder: Path) -> None:
    booster = xgboost.XGBClassifier(n_estimators=5).fit(WINES.data, WINES.target)
    booster.save_model(folder / "model.ubj")


def write_litert(folder: Path) -> None:
    (folder / "model.tflite").write_bytes(dense())


def started(folder: Path, work: Path, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "fourways_cli.kserve_server", "--model_name", NAME),
            *("--model_dir", str(folder), "--http_port", str(port), "--work_dir", str(work)),
            *("--termination_log", str(work / "last-words")),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(folder: Path, work: Path) -> Iterator[httpx.Client]:
    process = started(folder, work, port := free_port())
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:

        def ready() -> bool:
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                return client.get("/v2/health/ready").is_success
            except httpx.TransportError:
                return False

        try:
            until(ready, "the model is served", seconds=180)
            yield client
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.mark.parametrize("write", [write_skops, write_xgboost, write_litert])
def test_a_folder_is_served_in_both_versions(write: Any, tmp_path: Path) -> None:
    folder, work = tmp_path / "models", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    write(folder)
    rows = WINES.data[:3].astype(np.float32)
    rows = rows[:, :3] if write is write_litert else rows
    with serving(folder, work) as client:
        (described,) = [
            one
            for one in client.get(f"/v2/models/{NAME}").json()["inputs"]
            if not (one.get("parameters") or {}).get("entity_key")
        ]
        tensor = {"name": described["name"], "datatype": described["datatype"]}
        tensor |= {"shape": list(rows.shape), "data": rows.ravel().tolist()}
        asked = {"inputs": [tensor]}
        second = client.post(f"/v2/models/{NAME}/infer", json=asked)
        assert second.status_code == 200, second.text
        first = client.post(f"/v1/models/{NAME}:predict", json={"instances": rows.tolist()})
        assert first.status_code == 200, first.text
        assert len(first.json()["predictions"]) == 3


def test_a_pickle_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    process = started(tmp_path / "models", tmp_path, free_port())
    _, log = process.communicate(timeout=180)
    assert process.returncode in range(2, 8), log
    report = json.loads((tmp_path / "last-words").read_text())
    assert report["reason"] == "ModelNotLoadable"
    assert "skops" in report["message"]
