"""`fourways up` and the commands beside it as a person at a terminal uses them."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from onnx import TensorProto, helper

from fourways_cli.embedded.ports import free_port
from tests.kit.waiting import until
from tools.kit.models import FLOAT, onnx_bytes

pytestmark = pytest.mark.embedded

COMMAND = [sys.executable, "-m", "fourways_cli"]
SECONDS = 60.0


def echo(*names: str, output: str | None = None) -> bytes:
    """Return a model whose output o_NAME is its input NAME."""
    kinds = {name: TensorProto.STRING if name == "t" else FLOAT for name in names}
    outputs = {name: output or f"o_{name}" for name in names}
    return onnx_bytes(
        [helper.make_node("Identity", [n], [outputs[n]]) for n in names],
        [(n, kinds[n], ["N"]) for n in names],
        [(outputs[n], kinds[n], ["N"]) for n in names],
    )


def batch(name: str, *inputs: str, **source: Any) -> dict[str, Any]:
    """Return a manifest whose model and table are the files model.onnx and NAME.csv beside it."""
    kinds = {n: "string" if n == "t" else "float32" for n in inputs or ("x",)}
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "mode": "batch",
            "model": {"uri": "model.onnx", "version": "1"},
            "batch": {
                "schedule": "0 3 1 1 *",
                "source": {"uri": f"{name}.csv", "format": "CSV"} | source,
            },
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [{"name": n, "type": kind} for n, kind in kinds.items()],
                "outputs": [{"name": f"o_{n}", "type": kind} for n, kind in kinds.items()],
            },
        },
    }


class Project:
    """A folder with manifests, and a `fourways up` of them."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "model.onnx").write_bytes(echo("x"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def write(self, document: dict[str, Any], rows: str = "id,x\nk1,1\n") -> Path:
        name = document["metadata"]["name"]
        (self.folder / f"{name}.csv").write_text(rows)
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(document))
        return path

    def up(self, *manifests: Path, **environment: str) -> None:
        options = ["--state", str(self.folder / "state"), "--port", str(self.port)]
        with (self.folder / "said").open("wb") as said:
            self.process = subprocess.Popen(
                [*COMMAND, "up", *map(str, manifests), *options],
                stderr=said,
                stdout=said,
                env={**os.environ, "NO_COLOR": "1", **environment},
            )

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def line(self, pattern: str) -> str:
        """Wait for a line that `up` prints."""
        found = until(
            lambda: re.search(rf"^.*{pattern}.*$", self.said(), re.M),
            lambda: f"a line like {pattern!r}: {self.said()}",
            seconds=SECONDS,
        )
        assert found is not None
        return found[0]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *args, "--state", str(self.folder / "state")],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            # No cluster answers in place of a host that has ended.
            env={**os.environ, "KUBECONFIG": "/nowhere", "HOME": str(self.folder)},
        )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path / "one") as made:
        yield made


def hidden(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf")} - {"\n"}


# ---------------------------------------------------------------- foreign text


def test_a_key_with_brackets_ends_nothing_and_is_shown_as_it_is(project: Project) -> None:
    both = (batch(name, "x", "t") for name in ("bad", "good"))
    (project.folder / "model.onnx").write_bytes(echo("x", "t"))
    bad, good = next(both), next(both)
    bad["spec"]["batch"]["maxRejects"] = "0%"
    project.up(
        project.write(bad, "id,x,t\n[/x],,a\nk1,1,a\n"),
        project.write(good, "id,x,t\n[/x],1,[red]a\nk1,1,a\n"),
    )
    refused = project.line(r"bad\s+.*TooManyRejects")
    assert "[/x]" not in refused, "keys are personal data"
    assert "[/x]" in project.run("rejects", "bad").stdout
    assert "set nullable: true" in refused
    project.line(r"good\s+Ready")
    answered = project.run("predict", "good", "[/x]")
    assert answered.returncode == 0, answered.stderr
    assert {"[/x]", "o_t=[red]a"} <= set(answered.stdout.split())


def test_names_of_a_model_steer_no_terminal_and_fill_no_log(project: Project) -> None:
    evil = "x\n\x1b[31mRED\x1b]0;title\x07\u202e"
    for name, output in (("evil", evil), ("long", "b" * 5_000_000)):
        (project.folder / f"{name}.onnx").write_bytes(echo("x", output=output))
    documents = [batch(name) for name in ("evil", "long")]
    for document in documents:
        document["spec"]["model"]["uri"] = f"{document['metadata']['name']}.onnx"
    project.up(*(project.write(document) for document in documents))
    for name in ("evil", "long"):
        project.line(rf"{name}\s+.*ContractMismatch")
    assert hidden(project.said()) == set()
    assert hidden(project.run("status").stdout) == set()
    assert hidden(project.run("status", "-o", "json").stdout) == set()
    for log in (project.folder / "state" / "logs").iterdir():
        assert max(map(len, log.read_text().splitlines()), default=0) < 20_000


# ---------------------------------------------------------------- ports


def test_a_second_project_on_the_port_ends_at_once(project: Project, tmp_path: Path) -> None:
    project.up(project.write(batch("price")))
    project.line(r"price\s+Ready")
    with Project(tmp_path / "two", project.port) as second:
        second.up(second.write(batch("price"), "id,x\nk1,2\n"))
        assert second.process is not None
        assert second.process.wait(30) == 1
        assert f"port {project.port}" in second.said()
        assert "choose another with --port" in second.said()
        assert "gateway of namespace" not in second.said()
        answered = second.run("predict", "price", "k1")
        assert answered.returncode == 1
        assert "no `fourways up` is running here" in answered.stderr
    assert "o_x=1" in project.run("predict", "price", "k1").stdout


# ---------------------------------------------------------------- success is not said of nonsense


def test_nonsense_is_refused_with_what_there_is(project: Project) -> None:
    project.up(project.write(batch("price")))
    project.line(r"price\s+Ready")
    (run,) = project.run("list-runs", "price", "-o", "name").stdout.split()
    refused = project.run("start-run", "price", "--resume", "norun")
    assert refused.returncode == 1
    assert f"there is no run norun of price; the latest are {run}" in refused.stderr
    assert project.run("list-runs", "price", "-o", "name").stdout.split() == [run]
    assert project.run("predict", "price", "k1", "--input", "x=7").returncode == 2
    answered = project.run("predict", "price", "k1", "nokey")
    assert answered.returncode == 1
    assert "o_x=1" in answered.stdout
    assert "'nokey'" in answered.stderr
    for command in (
        ("list-runs", "nosuch"),
        ("rejects", "nosuch"),
        ("rollback", "nosuch"),
        ("start-run", "nosuch"),
        ("compare-runs", "nosuch", "a", "b"),
        ("rejects", "price", "norun"),
        ("compare-runs", "price", run, "norun"),
    ):
        refused = project.run(*command)
        assert (refused.returncode, refused.stdout) == (1, ""), command
        assert re.search("no ModelDeployment nosuch|norun", refused.stderr), command


def test_a_run_s_name_is_whole_on_a_terminal_of_80_columns(project: Project) -> None:
    project.up(project.write(batch("price")))
    project.line(r"price\s+Ready")
    (run,) = project.run("list-runs", "price", "-o", "name").stdout.split()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.run(
            [*COMMAND, "list-runs", "price", "--state", str(project.folder / "state")],
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm", "NO_COLOR": "1"},
            timeout=60,
        )
        os.close(theirs)
        text = terminal.read(65536).decode()
    assert done.returncode == 0, text
    assert run in text


# ---------------------------------------------------------------- refusals with the fix


def test_mixed_up_files_are_named_with_the_fix(project: Project) -> None:
    pickled, parquet = batch("pickled"), batch("as-parquet", format="Parquet")
    pickled["spec"]["model"]["uri"] = "pickled.onnx"
    (project.folder / "pickled.onnx").write_bytes(pickle.dumps({"a": 1}))
    project.up(project.write(pickled), project.write(parquet))
    line = project.line(r"pickled\s+.*ModelNotLoadable")
    assert "is a pickle" in line
    assert "ONNX" in line
    assert "format: CSV" in project.line(r"as-parquet\s+.*SourceError")


# ---------------------------------------------------------------- edits


def test_an_edited_manifest_is_taken_up(project: Project) -> None:
    document, other = batch("price"), batch("other")
    manifest, untouched = project.write(document), project.write(other)
    project.up(manifest, untouched)
    for name in ("price", "other"):
        project.line(rf"{name}\s+Ready")
    (run,) = project.run("list-runs", "other", "-o", "name").stdout.split()

    manifest.write_text("spec: [")
    project.line("a manifest was edited and is invalid: what runs is unchanged")
    assert "o_x=1" in project.run("predict", "price", "k1").stdout

    document["spec"]["model"]["version"] = "2"
    manifest.write_text(json.dumps(document))
    project.line("a manifest was edited: restarted price")
    until(
        lambda: '"version": "2"' in project.run("predict", "price", "k1", "-o", "json").stdout,
        "version 2 answers",
        seconds=SECONDS,
    )
    assert project.run("list-runs", "other", "-o", "name").stdout.split() == [run]
    assert project.process is not None
    assert project.process.poll() is None


# ---------------------------------------------------------------- what it is, says and did


def test_a_deployment_here_is_described_with_events_and_logs(project: Project) -> None:
    project.up(project.write(batch("price")))
    project.line(r"price\s+Ready")
    project.line("price  next: fourways predict price KEY")
    (run,) = project.run("list-runs", "price", "-o", "name").stdout.split()
    listed = project.run("get")
    assert "price" in listed.stdout
    assert listed.stderr == f"`fourways up` of {project.folder}/state, namespace default\n"
    described = project.run("describe", "price")
    assert described.returncode == 0, described.stderr
    for words in (run, "RunPublished", "fourways predict price KEY"):
        assert words in described.stdout
    happened = json.loads(project.run("events", "price", "-o", "json").stdout)
    assert "RunPublished" in {each["reason"] for each in happened}
    logs = project.run("logs", "price", "--tail", "1000")
    assert logs.returncode == 0, logs.stderr
    assert {line.split("  ")[0] for line in logs.stdout.splitlines()} == {run}
    refused = project.run("logs", "price", "--pod", "nosuch")
    assert (refused.returncode, refused.stderr) == (1, f"no log of nosuch; there are: {run}\n")
    opened = project.run("open", "price", "--no-browser")
    assert opened.stdout == f"http://127.0.0.1:{project.port}/deployments/price\n"
    applied = ("apply", str(project.folder / "price.yaml"))
    for command in (applied, ("delete", "price"), ("pause", "price")):
        refused = project.run(*command)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "runs the manifest files that it was given: edit them" in refused.stderr
