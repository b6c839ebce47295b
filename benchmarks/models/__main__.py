"""Models of many exporters: `fourways serve` on each file, unedited, until it answers.

The time starts with the command and ends with the first answer; processor time is that of all
processes together, until they have ended. Writes ``docs/figures-models.md``.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from benchmarks.figures import figure
from fourways_cli.embedded.ports import free_port
from tools.venvs import python_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "figures-models.md"
GOAL_SECONDS = 20.0
PATIENCE = 180.0

_EXPORTERS = (
    "catboost==1.2.10",
    "lightgbm==4.7.0",
    "mlflow-skinny==3.17.2",
    "onnx==1.23.2",
    "onnxruntime==1.31.1",
    "pandas==2.3.3",
    "pyarrow",
    "scikit-learn==1.9.1",
    "skl2onnx==1.20.0",
    "skops==0.16.0",
    "xgboost-cpu==3.2.0",
)
_SHIPPED = (
    "--no-deps",
    "basic-pitch==0.4.0",
    "faster-whisper==1.2.1",
    "magika==1.0.3",
    "nudenet==3.4.2",
    "rapidocr-onnxruntime==1.4.4",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One model, and who wrote it."""

    exporter: str
    file: str
    sample: str | None = None
    shipped: bool = False
    convert: bool = False
    """Whether `fourways convert` makes the file to serve."""


CASES = (
    Case("skl2onnx, a classifier with the default ZipMap", "skl2onnx-wine.onnx", "wine.csv"),
    Case("skl2onnx, boosting, columns without names", "skl2onnx-sugar.onnx", "sugar.csv"),
    Case("skl2onnx, one input per column, text", "skl2onnx-shop.onnx", "shop.parquet"),
    Case("skops, a pipeline", "skops-wine.skops", "wine.csv"),
    Case("skops, a support vector machine", "skops-cells.skops", "cells.csv"),
    Case("skops, columns selected by name, text", "skops-shop.skops", "shop.parquet"),
    Case("skops, a neural network", "skops-sugar.skops", "sugar.csv"),
    Case("`fourways convert`, a forest of skops", "forest.skops", "wine.csv", convert=True),
    Case("XGBoost, UBJSON", "xgboost-wine.ubj", "wine.csv"),
    Case("XGBoost, JSON, columns without names", "xgboost-sugar.json", "sugar.csv"),
    Case("LightGBM", "lightgbm-wine.txt", "wine.csv"),
    Case("LightGBM, columns without names", "lightgbm-sugar.txt", "sugar.csv"),
    Case("CatBoost's own ONNX", "catboost-cells.onnx", "cells.csv"),
    Case("MLflow folder, flavour xgboost", "mlflow-xgboost"),
    Case("MLflow folder, flavour sklearn as skops", "mlflow-sklearn"),
    Case("MLflow folder, flavour onnx", "mlflow-onnx"),
    Case("package magika (Keras)", "magika/models/standard_v3_3/model.onnx", shipped=True),
    Case(
        "package basic-pitch (tf2onnx)",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        shipped=True,
    ),
    Case(
        "package rapidocr (paddle2onnx)",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        shipped=True,
    ),
    Case("package nudenet (PyTorch)", "nudenet/320n.onnx", shipped=True),
    Case(
        "package basic-pitch (TensorFlow, LiteRT)",
        "basic_pitch/saved_models/icassp_2022/nmp.tflite",
        shipped=True,
    ),
    Case(
        "package faster-whisper (PyTorch, with a state)",
        "faster_whisper/assets/silero_vad_v6.onnx",
        shipped=True,
    ),
    Case(
        "package rapidocr (paddle2onnx, free sizes)",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        shipped=True,
    ),
)
MISSES = 1
"""Models that may fail."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one model fared."""

    case: Case
    seconds: float | None
    """From the command to the answer; None: it did not answer."""

    processor: float
    said: str = ""


def main() -> None:
    """Export, serve each, print and write down."""
    trainer = python_of("models-exporters", _EXPORTERS)
    shipped = _packages(python_of("models-shipped", _SHIPPED))
    with tempfile.TemporaryDirectory(prefix="fourways-models-") as name:
        folder = Path(name)
        program = Path(__file__).with_name("exporters.py")
        subprocess.run([trainer, program, folder], check=True, stderr=subprocess.DEVNULL)
        outcomes = [_outcome(case, folder, shipped) for case in CASES]
    answered = [it for it in outcomes if it.seconds is not None]
    PAGE.write_text(_page(outcomes), "utf-8")
    met = figure("models_answered", len(answered), len(CASES) - MISSES, at_most=False)
    slowest = max((it.seconds or 0 for it in answered), default=0.0)
    met &= figure("slowest_seconds", slowest, GOAL_SECONDS)
    sys.exit(not met)


def _packages(python: Path) -> Path:
    return next((python.parents[1] / "lib").glob("python*")) / "site-packages"


def _outcome(case: Case, folder: Path, shipped: Path) -> Outcome:
    where = folder / "case"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    model = (shipped if case.shipped else folder) / case.file
    sample = ["--sample", str(folder / case.sample)] if case.sample else []
    before = _processor()
    began = time.monotonic()
    if case.convert:
        command = _command("convert", str(model), *sample, "-o", "converted.onnx")
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
        if done.returncode:
            return Outcome(case, None, _processor() - before, done.stderr.strip())
        model = where / "converted.onnx"
    said = where / "said"
    with said.open("wb") as log:
        command = _command("serve", str(model), *sample, "--port", str(free_port()))
        process = subprocess.Popen(
            command, cwd=where, stdout=log, stderr=log, env={**os.environ, "COLUMNS": "4000"}
        )
    try:
        fault = _answer(process, said, began)
    finally:
        answered = time.monotonic() - began
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    made = Outcome(case, None if fault else answered, _processor() - before, fault)
    print(f"{case.exporter}: {fault or f'{answered:.1f} s'}", file=sys.stderr, flush=True)
    return made


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fourways_cli", *arguments]


def _answer(process: subprocess.Popen[bytes], said: Path, began: float) -> str:
    """Send the request that the command wrote, once it is printed; return a fault or nothing."""
    while time.monotonic() - began < PATIENCE:
        lines = said.read_text(errors="replace").splitlines()
        address = next((it.split()[-1] for it in lines if it.startswith("address ")), None)
        if address is not None and any(it.startswith("python ") for it in lines):
            (request,) = (said.parent / ".fourways" / "serve").glob("*.request.json")
            body = request.read_bytes()
            answer = httpx.post(f"{address}/infer", content=body, timeout=60, trust_env=False)
            if answer.status_code != 200 or not orjson.loads(answer.content)["outputs"]:
                return f"{answer.status_code}: {answer.text[:200]}"
            return ""
        if process.poll() is not None:
            return lines[-1] if lines else "it said nothing"
        time.sleep(0.05)
    return f"no answer within {PATIENCE:g} s: {said.read_text(errors='replace')[-300:]}"


def _processor() -> float:
    """Return the processor time of all ended children, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _page(outcomes: list[Outcome]) -> str:
    rows = [
        f"| {it.case.exporter} | {'none' if it.seconds is None else f'{it.seconds:.1f} s'}"
        f" | {it.processor:.1f} s | {it.said.replace('|', '/')[:200]} |"
        for it in outcomes
    ]
    count = sum(it.seconds is not None for it in outcomes)
    return "\n".join(
        [
            "# Figures of first answers",
            "",
            "`make bench-models` measures all of this and writes this page. Each model is served by"
            " `fourways serve FILE",
            "[--sample TABLE]` in an empty folder, with nothing edited. The time is that from the"
            " command to the answer to the",
            "request that it wrote; processor time is that of all processes, until they have ended."
            f" The goals are all but {MISSES}",
            f"of the models, and {GOAL_SECONDS:.0f} s each on an idle machine.",
            "",
            f"{count} of {len(outcomes)} answer.",
            "",
            "| exporter | to the answer | processor time | what was said otherwise |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
