"""The runtime as in its image, with its hot path compiled: a folder for PYTHONPATH."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path

from tools.cluster.config import cache_root
from tools.cluster.shell import lock

ROOT = Path(__file__).parents[1]
RUNTIMES = ROOT / "runtimes"
PACKAGES = ("fourways_http", "fourways_runtime")
_KEPT = 2


def why_not() -> str | None:
    """Return what this machine lacks for it; None if nothing."""
    if shutil.which("gcc") is None:
        return "no C compiler (gcc)"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "no headers of Python"
    return None


def overlay() -> Path:
    """Return the folder; created if it is missing, and cached by its content."""
    files = [RUNTIMES / "compile.py"]
    for package in PACKAGES:
        files += sorted(RUNTIMES.glob(f"{package}/**/*.py"))
    digest = sha256(sys.version.encode())
    for file in files:
        digest.update(f"\0{file.relative_to(RUNTIMES)}\0".encode() + file.read_bytes())
    folder = cache_root() / "compiled" / digest.hexdigest()[:16]
    with lock(cache_root() / "locks" / "compiled"):
        if not folder.is_dir():
            _make(folder)
            _forget_old(folder.parent)
        folder.touch()
    return folder


def _make(folder: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(
            RUNTIMES / package,
            unfinished / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    subprocess.run([sys.executable, RUNTIMES / "compile.py", unfinished], check=True)
    # As in the image: a first start that compiles bytecode would distort the measurement.
    subprocess.run([sys.executable, "-m", "compileall", "-q", unfinished], check=True)
    unfinished.rename(folder)


def _forget_old(where: Path) -> None:
    by_age = sorted(where.glob("[0-9a-f]*"), key=lambda folder: folder.stat().st_mtime)
    for folder in by_age[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
