"""The short form of the requests' torture: other damage at each run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]


def test_damaged_bodies_and_requests_get_a_4xx_with_a_reason() -> None:
    command = [sys.executable, "-m", "tools.torture.requests", "--short"]
    command += ["--seed", os.environ["FOURWAYS_SEED"]] if "FOURWAYS_SEED" in os.environ else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "0 faults" in done.stdout
