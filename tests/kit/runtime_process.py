"""What processes of the runtime are started with: as in an image, or with other periods."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

_WITH_OTHER_PERIODS = """
import json, runpy, sys
from importlib import import_module

for name, seconds in json.loads(sys.argv.pop(1)).items():
    module, _, constant = name.rpartition(".")
    assert hasattr(import_module(module), constant), name
    setattr(import_module(module), constant, seconds)
runpy.run_module("fourways_runtime", run_name="__main__", alter_sys=True)
"""


def command(word: str, periods: Mapping[str, float] | None = None) -> list[str]:
    """Return the command of a workload.

    Args:
        word: What `python -m fourways_runtime` is called with.
        periods: Seconds of constants, by "module.NAME". What another module has imported from it
            before is not changed: name the module that defines the constant.

    """
    if not periods:
        return [sys.executable, "-m", "fourways_runtime", word]
    return [sys.executable, "-c", _WITH_OTHER_PERIODS, json.dumps(periods), word]


def everywhere(root: Path, periods: Mapping[str, float]) -> str:
    """Return a PYTHONPATH with which all processes of the runtime have these periods.

    For those that a program under test starts; the periods are as in ``command``.
    """
    path = root / "periods"
    path.mkdir(exist_ok=True)
    (path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'fourways_runtime' in sys.orig_argv:\n"
        "    from importlib import import_module\n"
        f"    for name, seconds in {dict(periods)!r}.items():\n"
        "        module, _, constant = name.rpartition('.')\n"
        "        assert hasattr(import_module(module), constant), name\n"
        "        setattr(import_module(module), constant, seconds)\n"
    )
    return str(path)


def import_path(root: Path, *more: Path) -> str:
    """Return a PYTHONPATH without pandas, as in the image: pyarrow takes a second to import it."""
    image = root / "image"
    image.mkdir(exist_ok=True)
    (image / "pandas.py").write_text("raise ImportError")
    return os.pathsep.join(map(str, (image, *more)))
