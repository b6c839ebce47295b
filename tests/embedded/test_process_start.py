"""A worker's process before it has loaded anything: told to stop, or without its libraries."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError

pytestmark = pytest.mark.embedded

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
        assert first.wait(20) == 128 + signal.SIGTERM
    finally:
        first.kill()


@pytest.mark.parametrize("mode", ["batch", "stream", "serve"])
def test_a_worker_without_its_libraries_leaves_a_message(mode: str, tmp_path: Path) -> None:
    """The library is hidden from a real process, which then cannot import its mode."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('numpy', 'pyarrow', 'httptools'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    message = tmp_path / "message.json"
    done = subprocess.run(
        [sys.executable, "-m", "fourways_runtime", mode],
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "FOURWAYS_CONFIG": json.dumps({"paths": {"terminationLog": str(message)}}),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = json.loads(message.read_text())
    assert done.returncode in {2, ConfigError.exit_code}, done.stderr
    assert install_command("runtime") in report["message"], report
