"""``fourways convert``: make an ONNX file of a model, and prove it on a sample."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from fourways_api.installing import install_command

from .init import ModelArgument, SampleOption
from .output import FAILED, INVALID
from .terminal import say, warn

SECONDS = 900
"""Maximum time of a conversion."""

_NEEDED = ("onnx", "onnxruntime", "pyarrow", "skl2onnx", "onnxmltools")


def convert(
    model: ModelArgument,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="ONNX file to write.", metavar="OUT.onnx")
    ],
    sample: SampleOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Convert a scikit-learn (skops), XGBoost or LightGBM model to ONNX, and verify it.

    Up to 10,000 rows of the sample are scored by both models: the greatest difference is printed,
    and a conversion that gives another class or another number is refused. Forests, boosting and
    neighbours, which no skops file can carry safely to a server, are served this way. Runs in a
    process of its own.
    """
    missing = [each for each in _NEEDED if importlib.util.find_spec(each) is None]
    if missing:
        warn(f"converting needs {', '.join(missing)}: {install_command('runtime', 'convert')}")
        raise typer.Exit(FAILED)
    if out.exists() and not force:
        warn(f"{out} exists; give --force or another -o")
        raise typer.Exit(FAILED)
    if not out.parent.is_dir():
        warn(f"cannot write {out}: there is no folder {out.parent}; make it, or give another -o")
        raise typer.Exit(FAILED)
    made = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        said = _converted(model, sample, made)
        if "error" in said:
            warn(f"{model}: {said['error']}")
            raise typer.Exit(said.get("code", FAILED))
        os.replace(made, out)
    except OSError as error:
        warn(f"cannot write {out}: {error.strerror or error}")
        raise typer.Exit(FAILED) from None
    finally:
        made.unlink(missing_ok=True)
    classes = "" if said["classes"] is None else ", the same class in every row"
    what = (
        "made-up rows"
        if said["made_up"]
        else f"rows of {sample.name if sample else 'the input example'}"
    )
    say(f"{out}: greatest difference {said['difference']:.3g} in {said['rows']:,} {what}{classes}")
    if said["made_up"]:
        warn("note: proven on made-up rows only; give --sample TABLE with rows of yours")
    then = f" --sample {sample}" if sample else ""
    say(f"next: fourways serve {out}{then}")


def _converted(model: Path, sample: Path | None, out: Path) -> dict[str, Any]:
    """Run the worker; return what it printed, or why it printed nothing."""
    request = {"model": str(model), "sample": str(sample) if sample else None, "out": str(out)}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fourways_cli.conversion.worker"],
            input=orjson.dumps(request),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"the conversion takes longer than {SECONDS} s", "code": FAILED}
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        found: dict[str, Any] = orjson.loads(lines[-1])
        return found
    if done.returncode < 0:
        why = f"the converter was ended by signal {-done.returncode}: the file is damaged, or too large"  # noqa: E501
        return {"error": why, "code": INVALID}
    last = done.stderr.decode(errors="replace").strip().splitlines()
    return {"error": f"the converter failed: {last[-1] if last else 'it said nothing'}"}
