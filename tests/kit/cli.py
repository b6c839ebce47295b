"""Runs commands of ``fourways`` in the process of the test."""

from __future__ import annotations

from functools import cache

from typer import testing
from typer.main import get_command

# The runner has typer build all commands again for each run, which takes longer than most runs.
testing._get_command = cache(get_command)  # type: ignore[attr-defined]
CliRunner = testing.CliRunner
