"""A device of the demo: the agent in its own folder, with a public key and a gateway's URL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pyarrow.parquet as pq

from fourways_agent import Device as Agent

from .questions import ARTIFACTS, Answered, Json, in_words

FILE = "fourways/Makefile"


class Device:
    """A device that fetches one deployment's bundles."""

    def __init__(
        self,
        state: Path,
        key: Path,
        deployment: str = "file-type-on-device",
        target: str = "desktop",
    ) -> None:
        self._state = state
        self._key = key
        self._deployment = deployment
        self._target = target
        self._agent: Agent | None = None

    def fetch(self, url: str) -> None:
        """Fetch the published bundle, verify it, test it, and switch to it.

        Raises:
            CalledProcessError: the agent rejects it, and has reported why.
        """
        options = {
            "state": self._state,
            "gateway": url,
            "deployment": self._deployment,
            "target": self._target,
            "key": self._key,
        }
        command = [sys.executable, "-m", "fourways_agent", "update"]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        subprocess.run(command, check=True, stdout=subprocess.PIPE)

    def predict(self, record: Json) -> Json:
        """Score with a Python call; needs no network."""
        if self._agent is None:
            self._agent = Agent(self._state)
        return self._agent.predict(record)

    def ask(self) -> Answered:
        """Classify this project's Makefile."""
        rows = pq.read_table(ARTIFACTS / "file-type" / "source.parquet").to_pylist()
        content = next(row["content"] for row in rows if row["file"] == FILE)
        self.predict({"content": content})  # loads the model
        began = perf_counter()
        answer = self.predict({"content": content})
        taken = 1000 * (perf_counter() - began)
        question = f"Device.predict: the bytes of {FILE}, offline"
        return Answered("edge", self._deployment, question, in_words(answer), taken)
