"""``fourways init``: write the first manifest of a model file."""

from __future__ import annotations

import importlib.util
import re
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fourways_api.deployment import MAX_NAME, NAME_PATTERN
from fourways_api.display import displayed
from fourways_api.installing import install_command

from .first_manifest.names import name_of
from .output import FAILED, INVALID
from .terminal import say, warn

if TYPE_CHECKING:
    from .first_manifest.draft import Draft

_NEEDED = ("numpy", "onnxruntime", "pyarrow", "google.protobuf")


class InitMode(StrEnum):
    """The modes that a manifest can be written for."""

    BATCH = "batch"
    REALTIME = "realtime"
    STREAMING = "streaming"
    EDGE = "edge"


SampleOption = Annotated[
    Path | None,
    typer.Option(
        "--sample",
        help="Parquet or CSV table with rows that the model scores: gives key, ranges, categories "
        "and golden vectors.",
        metavar="TABLE",
        exists=True,
    ),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="Model file (ONNX, skops, XGBoost JSON or UBJSON, LightGBM text), a folder with one, "
        "or an MLflow model folder.",
        metavar="FILE|FOLDER",
        exists=True,
    ),
]


def _check_name(name: str | None) -> str | None:
    """Refuse an invalid name before the model is read, which may take minutes."""
    if name is None or (len(name) <= MAX_NAME and re.fullmatch(NAME_PATTERN, name)):
        return name
    meant = name_of(name)
    fix = f": --name {meant}" if meant else ""
    raise typer.BadParameter(
        f"{displayed(name, MAX_NAME)} is no name of a deployment; use at most {MAX_NAME} lower case"
        f" letters, digits and -, and start with a letter{fix}"
    )


NameOption = Annotated[
    str | None,
    typer.Option(
        help="Name of the deployment. Default: made from the file's name.",
        metavar="N",
        callback=_check_name,
    ),
]


def init(
    model: ModelArgument,
    sample: SampleOption = None,
    mode: Annotated[
        InitMode, typer.Option(help="Mode to write settings for.", case_sensitive=False)
    ] = InitMode.REALTIME,
    name: NameOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Manifest to write. Default: NAME.yaml here.", metavar="PATH"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write a manifest for a model file. It runs unchanged; comments say what to decide.

    Inputs, outputs, types, shapes and names are read from the model; entity key, ranges and
    categories from the sample, whose rows are scored as golden vectors. Model files are data: a
    pickle or joblib file is recognised and never opened.
    """
    draft = drafted(model, sample=sample, mode=mode, name=name, manifest=out)
    existing = draft.existing()
    if existing and not force:
        verb = "exists" if len(existing) == 1 else "exist"
        warn(f"{', '.join(map(str, existing))} {verb}; give --force, -o PATH or --name N")
        raise typer.Exit(FAILED)
    try:
        draft.write()
    except OSError as error:
        warn(f"cannot write {draft.manifest}: {error.strerror or error}")
        raise typer.Exit(FAILED) from None
    for note in draft.notes:
        warn(f"note: {note}")
    say(
        f"{draft.manifest}: {_counted(draft.inputs, 'input')},"
        f" {_counted(draft.outputs, 'output')}, mode {mode}"
    )
    for path in draft.beside:
        say(f"{path}: written beside it")
    say(f"next: fourways up {draft.manifest}")


def drafted(
    model: Path,
    *,
    sample: Path | None,
    mode: InitMode = InitMode.REALTIME,
    name: str | None,
    manifest: Path | None = None,
) -> Draft:
    """Make the first manifest of a model; if there can be none, say why and exit with 2."""
    missing = [each for each in _NEEDED if importlib.util.find_spec(each) is None]
    if missing:
        warn(f"reading a model needs {', '.join(missing)}: {install_command('runtime')}")
        raise typer.Exit(FAILED)
    from .first_manifest.draft import make_draft
    from .first_manifest.errors import NoManifest
    from .first_manifest.trial import check_crash

    try:
        check_crash(model, sample, mode.value)
        with warnings.catch_warnings():
            # scikit-learn warns that columns come without names: they do, in every mode.
            warnings.simplefilter("ignore")
            return make_draft(model, manifest=manifest, sample=sample, mode=mode.value, name=name)
    except NoManifest as error:
        warn(str(error))
        raise typer.Exit(INVALID) from None


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
