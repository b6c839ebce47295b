"""What Argo CD and Flux make of a ModelDeployment: their own code, run over objects.

Argo CD runs the chart's Lua script with gopher-lua; Flux reads the conditions with kstatus.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tools.cluster import gobuild

SCRIPT = Path(__file__).parents[2] / "charts" / "fourways" / "files" / "argocd-health.lua"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word, such as Healthy (Argo CD) or Current (Flux), and the message beside it."""

    word: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What both tools say of one object."""

    argocd: Verdict
    flux: Verdict


def judged(objects: Iterable[dict[str, Any]]) -> list[Verdicts]:
    """Return what is said of each object, in order.

    Raises:
        ClusterError: Go is missing.
    """
    program = gobuild.build_folder(Path(__file__).parent, "gitops")
    done = subprocess.run(
        [program, SCRIPT],
        input=b"".join(orjson.dumps(obj) + b"\n" for obj in objects),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    return [
        Verdicts(*(Verdict(*line[tool].values()) for tool in ("argocd", "flux"))) for line in lines
    ]
