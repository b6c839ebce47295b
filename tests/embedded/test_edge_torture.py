"""The short form of the device's torture: a few states of each kind, other ones at each run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(900)]


def test_a_device_comes_through_cuts_and_damage() -> None:
    # In a process of its own: it forks, which a process with onnxruntime's threads must not.
    command = [sys.executable, "-m", "tools.torture.device", "--short"]
    command += ["--seed", os.environ["FOURWAYS_SEED"]] if "FOURWAYS_SEED" in os.environ else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "0 faults" in done.stdout
