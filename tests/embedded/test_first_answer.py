"""From a model file to an answer, as a stranger does it: at most two commands."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import xgboost
from sklearn.datasets import load_wine

from fourways_cli.embedded.ports import free_port
from tests.kit.hosts import Up, await_settled
from tests.kit.waiting import until

pytestmark = pytest.mark.embedded

SECONDS = 90


@pytest.fixture(scope="module")
def wine() -> Any:
    return load_wine(as_frame=True)


@pytest.fixture
def folder(wine: Any, tmp_path: Path) -> Path:
    """A folder with the model of the wines, and a table of them with a key."""
    train(wine, tmp_path / "wine.ubj", trees=3)
    table = wine.data.copy()
    table.insert(0, "bottle", [f"b{at:03}" for at in range(len(table))])
    table.to_csv(tmp_path / "wine.csv", index=False)
    return tmp_path


def train(wine: Any, path: Path, trees: int) -> Any:
    model = xgboost.XGBClassifier(n_estimators=trees).fit(wine.data, wine.target)
    model.save_model(path)
    return model


def test_a_manifest_of_init_publishes_predictions_unedited(wine: Any, folder: Path) -> None:
    command = [sys.executable, "-m", "fourways_cli", "init", "wine.ubj", "--sample", "wine.csv"]
    subprocess.run([*command, "--mode", "batch"], cwd=folder, check=True, timeout=SECONDS)
    with Up(folder / "state", volumes={}) as host:
        host.start(folder / "wine.yaml")
        assert await_settled(host.state, SECONDS)["wine"]["Ready"]["status"] == "True"
        found = httpx.get(f"{host.url}/predictions/wine/b007", trust_env=False).json()
    model = xgboost.XGBClassifier()
    model.load_model(folder / "wine.ubj")
    expected = model.predict_proba(wine.data.iloc[[7]])[0]
    assert outputs(found) == pytest.approx(expected.tolist(), abs=1e-6)


def outputs(found: Any) -> list[float]:
    """Return the probabilities of a stored prediction, in whatever part of the answer they are."""
    prediction = found.get("outputs", found)
    values: list[float] = prediction["prediction"]
    return values


class Serve:
    """A `fourways serve` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fourways_cli", "serve", "wine.ubj", "--sample", "wine.csv",
                 "--port", str(self.port)],
                cwd=folder, stdout=log, stderr=log, env={**os.environ, "COLUMNS": "4000"},
            )  # fmt: skip

    def text(self) -> str:
        return self.log.read_text()

    def line(self, word: str) -> str:
        """Return what follows a word at the beginning of a line, once it is printed."""

        def found() -> str:
            lines = [it for it in self.text().splitlines() if it.startswith(f"{word} ")]
            return lines[0].removeprefix(word).strip() if lines else ""

        until(lambda: bool(found()), lambda: f"{word} is printed: {self.text()}", seconds=SECONDS)
        return found()

    def children(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    served = Serve(folder)
    yield served
    served.process.kill()
    served.process.wait()


def test_serve_prints_commands_that_answer_and_takes_up_a_new_model(
    wine: Any, serve: Serve
) -> None:
    words = shlex.split(serve.line("python"))
    said = subprocess.run(
        [sys.executable, *words[1:]], cwd=serve.folder, capture_output=True, text=True, timeout=60
    )
    assert '"model_name":"wine"' in said.stdout, said.stderr
    page = serve.line("page")
    told = httpx.get(page, headers={"accept": "text/html"}, trust_env=False)
    assert "wine" in told.text
    assert told.headers["content-type"].startswith("text/html")
    words = shlex.split(serve.line("curl"))
    address, body = words[2], words[4]

    def answer() -> list[float]:
        found = httpx.post(address, content=body, trust_env=False)
        return found.json()["outputs"][0]["data"] if found.status_code == 200 else []

    def expected(model: Any) -> Any:
        return pytest.approx(model.predict_proba(wine.data.iloc[[0]])[0].tolist(), abs=1e-6)

    model = xgboost.XGBClassifier()
    model.load_model(serve.folder / "wine.ubj")
    assert answer() == expected(model)
    better = train(wine, serve.folder / "wine.ubj", trees=9)
    until(
        lambda: answer() == expected(better),
        lambda: f"the new model answers: {serve.text()}",
        seconds=SECONDS,
        # The gateway restarts with it.
        ignoring=httpx.TransportError,
    )
    children = serve.children()
    assert children
    serve.process.send_signal(signal.SIGINT)
    assert serve.process.wait(timeout=30) == 0
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_a_model_that_cannot_be_served_replaces_nothing(serve: Serve) -> None:
    body = shlex.split(serve.line("curl"))[4]
    address = f"{serve.line('address')}/infer"
    (serve.folder / "wine.ubj").write_bytes(b"\x80\x04 now a pickle")
    until(
        lambda: "what runs is unchanged" in serve.text(),
        lambda: f"the pickle is refused: {serve.text()}",
        seconds=SECONDS,
    )
    assert "never opened" in serve.text()
    assert httpx.post(address, content=body, trust_env=False).status_code == 200


def test_serve_ends_at_once_where_the_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    said = subprocess.run(
        [sys.executable, "-m", "fourways_cli", "serve", "notes.txt"],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert said.returncode == 2
    assert "no model of a known format" in said.stderr
    assert not (tmp_path / ".fourways").exists()
