"""The folder of a mounted Secret, with its audience."""

from __future__ import annotations

from pathlib import Path

from fourways_api.audience import DEPLOYMENTS_KEY, HOSTS_KEY

HERE = "127.0.0.1 localhost"


def secret_folder(
    folder: Path, deployments: str = "*", hosts: str = HERE, /, **values: str
) -> Path:
    """Make the folder of a Secret that lists these deployments and hosts; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in {DEPLOYMENTS_KEY: deployments, HOSTS_KEY: hosts, **values}.items():
        (folder / key).write_text(value)
    return folder
