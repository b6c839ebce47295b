"""Importing the libraries of the formats: what they need, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fourways_runtime.errors import ConfigError
from fourways_runtime.scoring.model.extras import TREES_WITHOUT, load_module

LOAD = f"""
import sys
from fourways_runtime.scoring.model.extras import load_module
module = load_module("NAME", "NAME", without={TREES_WITHOUT})
module.Booster
print(*(each for each in {TREES_WITHOUT} if each in sys.modules))
import sklearn.base, pandas
"""


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_library_of_trees_is_imported_without_estimators_and_frames(name: str) -> None:
    pytest.importorskip(name)
    code = LOAD.replace("NAME", name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_what_is_imported_already_stays() -> None:
    load_module("json", "none", without=("string",))
    assert sys.modules["json"].loads("1") == 1
    with pytest.raises(ConfigError, match="not installed"):
        load_module("no_such_module_here", "sklearn", without=("no_such_package",))
    assert "no_such_package" not in sys.modules
