"""A container's first process, told to stop before it has loaded anything."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

LOADS_FOR_LONG = """
import sys, time
from fourways_runtime import __main__ as command
def load(name):
    print("loading", flush=True)
    time.sleep(30)
command.import_module = load
sys.argv = ["fourways_runtime", "serve"]
command.main()
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a PID namespace"
)
def test_the_first_process_of_a_container_ends_when_told_to() -> None:
    first = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", LOADS_FOR_LONG],
        stdout=subprocess.PIPE,
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"loading\n"
        children = f"/proc/{first.pid}/task/{first.pid}/children"
        with open(children, encoding="ascii") as file:
            os.kill(int(file.read().split()[0]), signal.SIGTERM)
        assert first.wait(10) == 128 + signal.SIGTERM
    finally:
        first.kill()
