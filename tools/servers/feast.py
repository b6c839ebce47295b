"""Feast's feature server, in an environment of its own: its pins do not go with the project's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.venvs import python_of

VERSION = "0.67.0"
_CONFIG = """
project: people
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
entity_key_serialization_version: 3
"""


def feast_program() -> Path:
    """Return the command of Feast, installed if it is missing."""
    return python_of("feast", (f"feast=={VERSION}",)).with_name("feast")


def make_repository(folder: Path, features: str) -> None:
    """Apply and fill a repository; ``features`` are its definitions, as Python.

    The definitions write the table that they read when they are run as a program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(_CONFIG)
    (folder / "features.py").write_text(features)
    program = feast_program()
    for command in (
        (program.with_name("python"), "features.py"),
        (program, "apply"),
        (program, "materialize", "2025-01-01T00:00:00", "2026-06-01T00:00:00"),
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
