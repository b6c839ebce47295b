"""A self-test of a model that does not return: refused with the stage, and not waited for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.embedded

HANGS = """
import sys, threading
from fourways_agent import check
from fourways_runtime.model_watch import WATCH

def model(slot, keys, digest):
    with WATCH.doing("checking the golden vectors"), WATCH.call(1, seconds=0):
        threading.Event().wait()  # for ever, as a model may

check._model = model
sys.exit(check.main(["model", "slot", "keys", "digest"]))
"""


def test_a_self_test_that_does_not_return_refuses_the_model() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)["refused"]
    assert refused.startswith("ModelHangs: checking the golden vectors: 1 row; the model has not")
