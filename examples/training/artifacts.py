"""The files of an example: their paths, their digests, golden vectors. Independent of the model.

An example NAME owns the folder ``artifacts/NAME`` and the manifest ``NAME.yaml``; other manifests
may use its files too. A manifest pins a file with the digest on the line below its URI. Because of
this convention, digests can be read and replaced as text, without a change to the comments around
them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).resolve().parents[1]
ARTIFACTS = EXAMPLES / "artifacts"

_PINNED = re.compile(
    r"(uri: pvc://fourways-examples/(?P<path>\S+)\n +digest: )(?P<digest>sha256:[0-9a-f]{64})"
)

Vector = dict[str, dict[str, Any]]
"""One golden vector: ``{"inputs": {NAME: VALUE}, "outputs": {NAME: VALUE}}``."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Maximum difference of numbers: absolute + relative x abs(expected)."""

    absolute: float
    relative: float


FLOAT32 = Tolerance(absolute=1e-5, relative=1e-4)
"""Maximum difference between an exported model and the library from which it was exported."""


def sha256(path: Path) -> str:
    """Return a file's digest in the form that manifests use."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def pinned(name: str) -> dict[str, str]:
    """Return the digests an example's manifest pins, by path below ``artifacts``.

    Raises:
        ValueError: the model or the golden vectors have no digest below their URI.

    """
    text = (EXAMPLES / f"{name}.yaml").read_text("utf-8")
    found = {found["path"]: found["digest"] for found in _PINNED.finditer(text)}
    if set(found) != {f"{name}/model.onnx", f"{name}/golden.jsonl"}:
        raise ValueError(f"{name}.yaml must pin model.onnx and golden.jsonl, not {sorted(found)}")
    return found


def pin(name: str) -> None:
    """Write the current digests of an example's files wherever a manifest pins them."""
    for manifest in EXAMPLES.rglob("*.yaml"):
        text = manifest.read_text("utf-8")
        new = _PINNED.sub(lambda found: _repinned(found, name), text)
        if new != text:
            manifest.write_text(new, "utf-8", newline="\n")


def _repinned(found: re.Match[str], name: str) -> str:
    ours = found["path"].startswith(f"{name}/")
    return found[1] + sha256(ARTIFACTS / found["path"]) if ours else found[0]


def differing(name: str, artifacts: Path = ARTIFACTS) -> list[str]:
    """Report each pinned file that is missing or has another digest."""
    problems = []
    for path, digest in pinned(name).items():
        file = artifacts / path
        found = sha256(file) if file.is_file() else "no file"
        if found != digest:
            problems.append(f"{file}: {name}.yaml pins {digest}, found {found}")
    return problems


def write_golden(path: Path, vectors: Iterable[Vector]) -> None:
    """Write golden vectors as JSON Lines."""
    lines = (json.dumps(vector, separators=(",", ":"), allow_nan=False) for vector in vectors)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")


def read_golden(path: Path) -> list[Vector]:
    """Read golden vectors from JSON Lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def plain(value: Any) -> Any:
    """Return a scalar as JSON writes it: a missing number is null, a float32 keeps its digits.

    It writes the shortest decimal that reads back as the same float32 (``11.77``), not that
    number's expansion (``11.770000457763672``).
    """
    if isinstance(value, str | int):
        return value
    number = np.float32(value)
    return None if np.isnan(number) else float(str(number))


def disagreement(
    expected: Mapping[str, Any], answered: Mapping[str, Any], tolerance: Tolerance
) -> str | None:
    """Return the first output that differs from the expected one, with both values."""
    for name, wanted in expected.items():
        got = answered[name]
        if not _same(wanted, got, tolerance):
            return f"{name} is {got}, expected {wanted}"
    return None


def _same(wanted: Any, got: Any, tolerance: Tolerance) -> bool:
    if isinstance(wanted, list):
        return len(wanted) == len(got) and all(
            _same(ours, theirs, tolerance) for ours, theirs in zip(wanted, got, strict=True)
        )
    if isinstance(wanted, str):
        return bool(wanted == got)
    return bool(abs(got - wanted) <= tolerance.absolute + tolerance.relative * abs(wanted))
