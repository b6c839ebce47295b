"""A model server as a process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fourways_api import RunReport
from fourways_api.runtime_config import ServerConfig
from tests.kit.runtime_process import command, import_path


class Process:
    """A running model server, and what it has logged."""

    def __init__(
        self, root: Path, config: ServerConfig, periods: Mapping[str, float] | None = None
    ) -> None:
        self.root = root
        self.url = f"http://127.0.0.1:{config.port}"
        self.process = subprocess.Popen(
            command("serve", periods),
            env={
                **os.environ,
                "FOURWAYS_CONFIG": json.dumps(config.to_json()),
                "PYTHONPATH": import_path(root),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, Any]] = []

    def until(self, message: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["message"] == message:
                return self.log[-1]
        raise AssertionError(self.log)

    def end(self) -> int:
        _, rest = self.process.communicate(timeout=20)
        self.log += map(json.loads, rest.splitlines())
        return self.process.returncode

    def last_words(self) -> RunReport:
        return RunReport.model_validate_json((self.root / "last-words").read_text())


@contextmanager
def started(
    root: Path, config: ServerConfig, periods: Mapping[str, float] | None = None
) -> Iterator[Process]:
    running = Process(root, config, periods)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
