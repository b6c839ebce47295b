"""Finds the model that a path means: a file, an MLflow folder, or the only model in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fourways_runtime.errors import ModelNotLoadable, WorkloadError
from fourways_runtime.scoring.model.description import Description, describe, recognised

from .errors import NoManifest
from .mlflow_folder import read_mlflow
from .names import name_of
from .sample import Sample
from .tokenizer_file import TokenizerBeside, with_tokenizer

_MAX_FILES = 200


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that was loaded, and what stands beside it."""

    description: Description
    name: str
    """A name for the deployment."""

    columns: tuple[str, ...] = ()
    """Names of the columns that a signature gives."""

    kinds: Mapping[str, str] = field(default_factory=dict)
    """Types of the columns that a signature gives."""

    example: Sample | None = None
    """An input example."""

    tokenizer: TokenizerBeside | None = None
    """A tokenizer beside the model, which then reads texts."""


def find_model(path: Path) -> ModelSource:
    """Load the model of a file or folder. Raises NoManifest."""
    name = deployment_name(path)
    try:
        if not path.is_dir():
            return _with_texts(ModelSource(_describe(path), name))
        if (path / "MLmodel").exists():
            found = read_mlflow(path)
            described = _describe(found.file)
            return _with_texts(
                ModelSource(described, name, found.columns, found.kinds, found.example)
            )
        return _with_texts(ModelSource(_describe(_only_model(path)), name))
    except WorkloadError as error:
        raise NoManifest(f"{path}: {error}") from None
    except OSError as error:
        raise NoManifest(f"{path} cannot be read: {error.strerror}") from None


def _with_texts(source: ModelSource) -> ModelSource:
    described = source.description
    model, tokenizer = with_tokenizer(described.model, described.path)
    if tokenizer is None:
        return source
    return replace(source, description=replace(described, model=model), tokenizer=tokenizer)


def model_file(path: Path) -> tuple[Path, Sample | None]:
    """Return the model's file of a path, and an example beside it. Raises NoManifest."""
    if not path.is_dir():
        return path, None
    if (path / "MLmodel").exists():
        found = read_mlflow(path)
        return found.file, found.example
    return _only_model(path), None


def deployment_name(path: Path) -> str:
    """Make a valid name from a file's or folder's name."""
    return name_of(path.resolve().name.partition(".")[0]) or "model"


def _describe(path: Path) -> Description:
    return describe(path, max_bytes=max(2048, 4 * (path.stat().st_size >> 20)) << 20)


def _only_model(folder: Path) -> Path:
    """Return the only file of a folder that is a model of a known format."""
    files = sorted(each for each in folder.iterdir() if each.is_file())[:_MAX_FILES]
    found = []
    faults = []
    for file in files:
        try:
            recognised(file)
        except ModelNotLoadable as error:
            faults.append(f"{file.name}: {error}")
        else:
            found.append(file)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found[:10])
        raise NoManifest(f"{folder} holds several models ({names}); give one of these files")
    if len(files) == 1:
        raise NoManifest(f"{folder}: {faults[0]}")
    raise NoManifest(f"{folder} holds no model file and no MLmodel; give the model's file")
