"""Python environments of other programs, created once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from tools.cluster.config import cache_root

ROOT = Path(__file__).parents[1]


def python_of(name: str, wanted: tuple[str, ...], mark: str = "") -> Path:
    """Return the Python of an environment, which is created if it is missing.

    ``wanted`` are arguments of ``uv pip install``; ``mark`` is whatever else determines the result.
    """
    told = " ".join((sys.version, *wanted, mark))
    folder = cache_root() / "bench-venvs" / f"{name}-{sha256(told.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = str(ROOT / ".tools" / "bin" / "uv")
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *wanted],
            check=True,
            cwd=ROOT,
        )
        (folder / "complete").touch()
    return python
