"""What a light command must not import: it would take longer than the command itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fourways_cli.commands import COMMANDS, GROUPS, RENAMED, program

OWN_TYPES = "fourways_api.spec"
"""The types of a manifest, whose validators take longer to build than a light command to run."""

HEAVY = (OWN_TYPES, "fourways_operator", "fourways_runtime", "kubernetes", "numpy", "onnxruntime")
LIST = f"""
import sys
from fourways_cli.main import main
try:
    main()
finally:
    print(*(each for each in {HEAVY} if each in sys.modules), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    """Run a command in a process of its own; return which heavy packages it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", LIST, *arguments], capture_output=True, text=True, timeout=60
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("version",), ("logs", "--help"), ("events", "--help")])
def test_a_light_command_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments) == set()


def test_a_manifest_is_checked_without_clients_and_models() -> None:
    manifest = "examples/parity/churn.yaml"
    assert imported("validate", manifest) <= {OWN_TYPES}


def test_a_command_line_has_its_command_only_and_the_help_has_all() -> None:
    for first in (*COMMANDS, *GROUPS, *RENAMED):
        found = program(first)
        names = [each.name for each in (*found.registered_commands, *found.registered_groups)]
        assert names == [first]
    for first in (None, "--help", "no-such-command"):
        found = program(first)
        names = [each.name for each in (*found.registered_commands, *found.registered_groups)]
        assert names == [*COMMANDS, *RENAMED, *GROUPS]
