"""Ways to others' files through claims, tables and models, and to run a program of one's own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper, numpy_helper

from fourways_api import BatchSource, FetchPolicy, ModelReference
from fourways_runtime.io.fetch import fetch
from fourways_runtime.io.sources import open_table
from fourways_runtime.scoring import model as models

from .hosts import CONTRACT, paths_of, refused
from .way import CANARY, Ground, Reached, Way

MOUNTED = ("secrets/others", "store")
NAMES = ("uri", "..data/uri", "*/uri", "..*/uri", "?*/uri", "[.]*/uri", "**/uri")
CLAIM = {
    "a link to a file": ("../others/x.csv", "link"),
    "a link to a folder": ("../others", "link/x.csv"),
    "a link to the root": ("/etc", "link/passwd"),
}
WEIGHTS = {
    "a step up": "../x.csv",
    "a step up and back": "sub/../../x.csv",
    "an absolute path": "/etc/passwd",
    "a link": "link.bin",
    "memory of the process": "*/_ORT_MEM_ADDR_/*",
    "a second name": "hard.bin",
}
FORMATS = ("onnx", "skops", "xgboost", "lightgbm")


def lay_out(ground: Ground) -> None:
    """Make a claim of one's own and others' claim, Secret and store."""
    mine, others = (ground.folder / "volumes" / name for name in ("mine", "others"))
    for folder in (mine, others, mine / "sub"):
        folder.mkdir(parents=True)
    (others / "x.csv").write_text(f"id,x\n{CANARY},1\n")
    for name in MOUNTED:
        # As the kubelet does.
        real = ground.folder / name / "..2026_11_30"
        real.mkdir(parents=True)
        (real.parent / "..data").symlink_to(real.name)
        (real / "uri").write_text(f"id,x\n{CANARY},1\n")
        (real.parent / "uri").symlink_to("..data/uri")


def ways() -> Iterator[Way]:
    """Return the ways with files, models and programs."""
    for folder in MOUNTED:
        for name in NAMES:
            yield _mounted(folder, name)
    for name, (target, path) in CLAIM.items():
        yield _claimed(name, target, path)
    yield _hard_link()
    yield from _hidden()
    for name, location in WEIGHTS.items():
        yield _weights(name, location)
    for kind in FORMATS:
        yield _pickled(kind)
    yield Way("program", "modules beside the manifest", _beside, "fourways")


def _mounted(folder: str, name: str) -> Way:
    def refusal(ground: Ground) -> str:
        uri = f"file://{ground.folder}/{folder}/{name}"
        source = BatchSource.model_validate({"uri": uri, "format": "CSV"})
        return refused(lambda: _rows(ground, source))

    return Way("Secret", f"{folder}/{name} as a table", refusal, f"/{folder}/")


def _rows(ground: Ground, source: BatchSource) -> Any:
    table = open_table(source, CONTRACT, policy=FetchPolicy(), paths=paths_of(ground))
    return [chunk.batch.to_pylist() for chunk in table.chunks()]


def _model(ground: Ground, path: str) -> Any:
    found = fetch(
        f"pvc://mine/{path}",
        into=ground.folder / "cache",
        digest=None,
        max_bytes=1 << 20,
        policy=FetchPolicy(),
        paths=paths_of(ground),
    )
    return found.path.read_bytes()


def _claimed(name: str, target: str, path: str) -> Way:
    def refusal(ground: Ground) -> str:
        link = ground.folder / "volumes" / "mine" / "link"
        link.symlink_to(target)
        try:
            return refused(lambda: _model(ground, path))
        finally:
            link.unlink()

    return Way("claim", name, refusal, "'link' is a link")


def _hard_link() -> Way:
    def refusal(ground: Ground) -> str:
        hard = ground.folder / "volumes" / "mine" / "hard"
        os.link(ground.folder / "volumes" / "others" / "x.csv", hard)
        try:
            return refused(lambda: _model(ground, "hard"))
        finally:
            hard.unlink()

    return Way("claim", "a second name of a file", refusal, "hard links")


def _hidden() -> Iterator[Way]:
    for pattern in ("*.csv", "**/*.csv", ".*/x.csv"):

        def refusal(ground: Ground, pattern: str = pattern) -> str:
            hidden = ground.folder / "volumes" / "mine" / ".snapshots"
            hidden.mkdir(exist_ok=True)
            (hidden / "x.csv").write_text(f"id,x\n{CANARY},1\n")
            told = {"uri": f"pvc://mine/{pattern}", "format": "CSV"}
            return refused(lambda: _rows(ground, BatchSource.model_validate(told)))

        yield Way("claim", f"a hidden folder as {pattern}", refusal, pattern)


def _load(ground: Ground, raw: bytes, kind: str = "onnx", beside: Path | None = None) -> Any:
    file = ground.folder / "model"
    file.write_bytes(raw)
    reference = ModelReference(
        uri="pvc://mine/m", version="1", format=kind, allow_external_data=beside is not None
    )
    return models.load(file, reference, threads=1, external_root=beside)


def _weights(name: str, location: str) -> Way:
    def refusal(ground: Ground) -> str:
        mine = ground.folder / "volumes" / "mine"
        tensor = numpy_helper.from_array(_eight_bytes(), "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "8")):
            tensor.external_data.add(key=key, value=value)
        for link, target in (("link.bin", "../others/x.csv"), ("hard.bin", "")):
            (mine / link).unlink(missing_ok=True)
            if target:
                (mine / link).symlink_to(target)
            else:
                os.link(ground.folder / "volumes" / "others" / "x.csv", mine / link)
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
            [tensor],
        )
        opset = helper.make_opsetid("", 17)
        raw = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
        return refused(lambda: _load(ground, raw, beside=mine))

    return Way("claim", f"weights at {name}", refusal, "weights")


def _eight_bytes() -> Any:
    import numpy as np

    return np.zeros(2, np.float32)


class _Program:
    """What runs where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return (open, (str(self._mark), "w"))


def _pickled(kind: str) -> Way:
    def refusal(ground: Ground) -> str:
        mark = ground.folder / "RAN"
        said = refused(lambda: _load(ground, pickle.dumps(_Program(mark)), kind))
        if mark.exists():
            raise Reached("the program in the file ran")
        return said

    return Way("program", f"a pickle as a model of format {kind}", refusal, "model")


def _beside(ground: Ground) -> str:
    folder, mark = ground.folder / "beside", ground.folder / "RAN"
    folder.mkdir(exist_ok=True)
    for module in ("orjson", "typer", "pydantic", "fourways_api"):
        (folder / f"{module}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    done = subprocess.run(
        [sys.executable, "-m", "fourways_cli", "--version"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if mark.exists() or done.returncode:
        raise Reached(f"a module beside the manifest ran: {done.stderr[-200:]}")
    return f"{done.stdout} fourways"
