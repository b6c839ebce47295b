"""Evaluating a rule does not load the command line of the CEL library, and leaves it usable."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from fourways_api.base import Rule
assert Rule("self.a > 1", "too small", "raise it").holds({"a": 2})
assert not {"cel.cli", "prompt_toolkit", "typer"} & set(sys.modules), sorted(sys.modules)
import cel
assert cel.evaluate("1 + 1") == 2
import cel.cli
assert cel.cli.app is not None
"""


@pytest.mark.thorough
def test_a_rule_loads_no_command_line() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
