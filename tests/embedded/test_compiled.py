"""The runtime as it is in the image, its hot path compiled, answers as its source does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.compiled import ROOT, overlay, why_not

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]

UNIT = ROOT / "tests" / "unit"
NAMES = """
import importlib, sys
sys.path.append("runtimes")
from compile import MODULES
for name in MODULES:
    print(importlib.import_module(name.replace("/", ".")).__file__)
"""


@pytest.fixture(scope="module")
def compiled() -> dict[str, str]:
    """The environment in which the compiled runtime comes before its source."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return {**os.environ, "PYTHONPATH": str(overlay())}


def test_it_is_the_compiled_code_that_is_imported(compiled: dict[str, str]) -> None:
    told = subprocess.run(
        [sys.executable, "-c", NAMES],
        cwd=ROOT,
        env=compiled,
        check=True,
        capture_output=True,
        text=True,
    )
    names = told.stdout.split()
    assert names
    assert {Path(name).suffix for name in names} == {".so"}
    assert all(name.startswith(compiled["PYTHONPATH"]) for name in names)


def test_it_passes_the_tests_of_its_source(compiled: dict[str, str]) -> None:
    files = sorted(
        file
        for kind in ("http_heads", "http_server", "serving", "gateway")
        for file in UNIT.glob(f"test_{kind}*.py")
    )
    quietly = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not thorough"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *quietly, *files],
        cwd=ROOT,
        env=compiled,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
