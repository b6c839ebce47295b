"""The short form of the callers' torture: other requests without permission at each run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]


def test_nobody_without_permission_is_answered() -> None:
    command = [sys.executable, "-m", "tools.torture.callers", "--short"]
    command += ["--seed", os.environ["FOURWAYS_SEED"]] if "FOURWAYS_SEED" in os.environ else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "500 requests without permission" in done.stdout
