"""Read manifests: return the valid ModelDeployments of files, or their problems.

A path without a scheme, such as ``uri: model.onnx``, is relative to its file. It becomes a
``file://`` URI before the document is validated, so the API types and the operator never see it.
In a manifest for a cluster, such a path is refused, with the fix.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import typer

from fourways_api import KIND, Document, ModelDeployment, Problem, review
from fourways_api.display import displayed
from fourways_api.training_profile import MAX_PROFILE_BYTES, InvalidProfile, read_profile
from fourways_api.values import scheme

from .output import INVALID, Finding, findings_of, print_findings, read_file
from .terminal import warn

URI_FIELDS = (
    "spec.model.uri",
    "spec.contract.labels.uri",
    "spec.contract.tokenizer.uri",
    "spec.contract.goldenVectors.uri",
    "spec.monitoring.profile.uri",
    "spec.batch.source.uri",
    "spec.quality.truth.uri",
    "spec.batch.sink.files.uri",
    "spec.edge.publish",
)
"""All fields of a ModelDeployment that contain a URI."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One ModelDeployment of a file, valid or not."""

    file: Path
    document: Document
    """The document as written, except that paths without a scheme are file URIs."""

    deployment: ModelDeployment | None
    """The deployment; None if it could not be read at all."""

    findings: tuple[Finding, ...]
    relative: tuple[str, ...]
    """The fields whose URI was written as a path without a scheme."""

    notes: tuple[str, ...] = ()
    """Valid but worth knowing, such as runs that a clock change skips."""

    @property
    def title(self) -> str:
        """Kind and name."""
        return self.document.title


@dataclass(frozen=True, slots=True)
class SkippedObject:
    """An object of a file that is not a ModelDeployment."""

    file: Path
    document: Document

    @property
    def title(self) -> str:
        """Kind and name."""
        return self.document.title


@dataclass(slots=True)
class ManifestFiles:
    """The contents of some files."""

    valid: list[Manifest] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    skipped: list[SkippedObject] = field(default_factory=list)


def read_manifests(
    paths: Iterable[Path], *, namespace: str | None = None, for_cluster: bool = False
) -> ManifestFiles:
    """Read and validate the ModelDeployments of some files.

    ``namespace`` is the namespace of those that name none, as with ``kubectl apply -n``.
    ``for_cluster`` refuses paths that are relative to the file.
    """
    read = ManifestFiles()
    places: dict[tuple[str, str], str] = {}
    for path in paths:
        documents, unread = read_file(path)
        read.findings += unread
        for document in documents:
            if not document.is_ours:
                read.skipped.append(SkippedObject(path, document))
                continue
            manifest = read_manifest(path, document, namespace, for_cluster=for_cluster)
            findings = [*manifest.findings, *_given_twice(manifest, places)]
            read.findings += findings
            if not findings:
                read.valid.append(manifest)
    return read


def read_deployments(
    paths: Iterable[Path], *, namespace: str | None = None, for_cluster: bool = False
) -> list[ModelDeployment]:
    """Return the ModelDeployments of files; if one is invalid, say why and exit with 2."""
    paths = list(paths)
    read = read_manifests(paths, namespace=namespace, for_cluster=for_cluster)
    print_findings(read.findings)
    if not read.valid and not read.findings:
        warn(f"no {KIND} in {', '.join(map(str, paths))}")
    if read.findings or not read.valid:
        raise typer.Exit(INVALID)
    return [m.deployment for m in read.valid if m.deployment]


def read_manifest(
    path: Path,
    document: Document,
    namespace: str | None = None,
    *,
    for_cluster: bool = False,
    with_profile: bool = True,
) -> Manifest:
    """Validate one ModelDeployment of a file, and its training profile unless told not to."""
    data = copy.deepcopy(document.data)
    problems = [*_set_namespace(data, namespace)]
    relative = _resolve_paths(data, _folder(path))
    verdict = review(replace(document, data=data))
    problems += verdict.problems
    problems += _profile_faults(verdict.deployment) if with_profile else []
    if for_cluster:
        problems += [_no_path_here(name, written) for name, written in relative.items()]
    findings = tuple(findings_of(path, document, problems))
    return Manifest(
        path, verdict.document, verdict.deployment, findings, tuple(relative), verdict.notes
    )


def _profile_faults(deployment: ModelDeployment | None) -> list[Problem]:
    """Return what is wrong with the training profile, if it is a file of this machine."""
    monitoring = deployment.spec.monitoring if deployment else None
    if deployment is None or monitoring is None or scheme(monitoring.profile.uri) != "file":
        return []
    path = Path(unquote(urlsplit(monitoring.profile.uri).path))
    if not path.is_file():
        return []  # It may be of another machine; the worker says so if it is not.
    try:
        with path.open("rb") as file:
            read_profile(file.read(MAX_PROFILE_BYTES + 1), deployment.spec.contract)
    except OSError as error:
        fault = f"cannot be read: {error.strerror or error}"
    except InvalidProfile as error:
        fault = displayed(error, 512)
    else:
        return []
    fix = "make it again with `fourways init --sample`, or remove monitoring"
    return [Problem("spec.monitoring.profile.uri", fault, fix)]


def _folder(path: Path) -> Path:
    """Return the base folder of paths in a file; the working directory for standard input."""
    return Path.cwd() if str(path) == "-" else path.resolve().parent


def _set_namespace(data: dict[str, Any], namespace: str | None) -> list[Problem]:
    metadata = data.get("metadata")
    if namespace is None or not isinstance(metadata, dict):
        return []
    written = metadata.setdefault("namespace", namespace)
    if written == namespace:
        return []
    fault = f"{written!r} is not the namespace given with -n, {namespace!r}"
    return [Problem("metadata.namespace", fault, "leave -n out, or correct the manifest")]


def _resolve_paths(data: dict[str, Any], folder: Path) -> dict[str, str]:
    """Replace paths without a scheme by file URIs, in place; return the paths by field."""
    found = {}
    for name in URI_FIELDS:
        holder, last = _holder(data, name)
        written = holder.get(last)
        if not (isinstance(written, str) and written) or _SCHEME.match(written):
            continue
        # Links are not resolved: the runtime decides about links below the manifest's folder.
        path = Path(os.path.normpath(folder / written))
        holder[last] = path.as_uri() + ("/" if written.endswith("/") else "")
        found[name] = written
    return found


def _no_path_here(name: str, written: str) -> Problem:
    return Problem(
        name,
        f"'{written}' is a path of this machine, which a cluster cannot read",
        "write s3://, pvc://CLAIM/ or another URI (`fourways up` reads paths relative to the file)",
    )


def _holder(data: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Return the object that contains a field, or an empty one, and the field's own name."""
    *path, last = name.split(".")
    holder: Any = data
    for key in path:
        holder = holder.get(key) if isinstance(holder, dict) else None
    return (holder if isinstance(holder, dict) else {}), last


def _given_twice(manifest: Manifest, places: dict[tuple[str, str], str]) -> list[Finding]:
    """Record a deployment's place; return a finding if its name was recorded before."""
    metadata = manifest.document.data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not isinstance(metadata, dict):
        return []
    key = (str(metadata.get("namespace") or "default"), name)
    place = f"{manifest.file}:{manifest.document.line('metadata.name')}"
    first = places.setdefault(key, place)
    if first == place:
        return []
    fault = f"'{name}' is given twice in namespace {key[0]}: also at {first}"
    problem = Problem("metadata.name", fault, "rename one of them, or remove it")
    return list(findings_of(manifest.file, manifest.document, [problem]))
