"""Killed at any moment of an update, a device has one whole model, old or new, that answers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from time import monotonic

import pytest

from fourways_agent import Device
from fourways_agent.start import MAX_CRASHES
from fourways_agent.state import Store
from fourways_agent.update import update
from tests.kit.edge_rig import RECORD, Publisher, device, gateway_of
from tests.kit.kills import LONG_KILLS

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]

KILLS = LONG_KILLS or 6
ANSWERS = {"v1": {"score": 30.0}, "v2": {"score": 60.0}}

# Everything but the two processes that only look: what is killed here is what writes. Each line of
# the input is a step; a child that has imported everything already dies there.
AT_STEP = """
import os, sys, traceback
from contextlib import nullcontext
from pathlib import Path
from fourways_agent import check
from fourways_agent.state import Store
from fourways_agent.update import update
from fourways_runtime import folder_writer

left = 0

def count(step):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    return nullcontext()

folder_writer.on_change = count
check.test_model = lambda slot, keys, digest: {}
store = Store(Path(sys.argv[1]))

for line in sys.stdin:
    child = os.fork()
    if not child:
        left = int(line)
        try:
            update(store, store.needs_settings())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def whole(store: Store, digests: dict[str, str]) -> str:
    """Start the device as after a reboot; return the version that answers, and whole it is."""
    it = Device(store.folder)
    assert it.digest == digests[it.version]
    assert it.predict(RECORD) == ANSWERS[it.version]
    return it.version


def test_killed_before_every_single_change_of_the_disk(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    with gateway_of(publisher) as gateway, ExitStack() as stack:
        store, settings = device(tmp_path, gateway)
        digests = {"v1": publisher.publish(1)}
        update(store, settings)
        assert whole(store, digests) == "v1"
        digests["v2"] = publisher.publish(2)
        start = store.read()
        fresh = {file: file.read_bytes() for file in store.folder.rglob("*") if file.is_file()}
        updating = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", AT_STEP, str(store.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert updating.stdin is not None
        assert updating.stdout is not None
        for step in count(1):
            print(step, file=updating.stdin, flush=True)
            code = int(updating.stdout.readline())
            if code == 0:
                break
            assert code == -signal.SIGKILL
            assert whole(store, digests) in ANSWERS
            # And back to where it was, so that each step is met from the start.
            _restore(store, fresh)
            assert store.read() == start, "back to the start"
        assert step > 20, "the steps are counted"
        assert whole(store, digests) == "v2"


def _restore(store: Store, files: dict[Path, bytes]) -> None:
    for file in store.folder.rglob("*"):
        if file.is_file() and file not in files:
            file.unlink()
    for file, raw in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(raw)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, padding=2**20)
    digests = {"v1": publisher.publish(1), "v2": publisher.publish(2)}
    seed = int(os.environ.get("FOURWAYS_SEED", "0")) or random.randrange(2**31)
    print(f"FOURWAYS_SEED={seed}")
    luck = random.Random(seed)
    came_through: set[str] = set()
    with gateway_of(publisher) as gateway:
        store, _ = device(tmp_path, gateway)
        version, length = "", 60.0
        kills = since = 0
        while kills < KILLS:
            if not version or publisher.index()["manifests"][0]["digest"] == digests[version]:
                publisher.publish(1 if version == "v2" else 2)
            # Now and then one is let be: it says how long an update takes on this machine now.
            undisturbed = since % 10 == 0
            took = _update(store, None if undisturbed else luck.uniform(0.05, 1.1 * length))
            length = took if undisturbed and took else length
            kills, since = kills + (took is None), since + 1
            version = whole(store, digests)
            came_through.add(version)
    assert came_through == set(ANSWERS)


def _update(store: Store, seconds: float | None) -> float | None:
    """Update in a process of its own; return how long it took, or None where it was killed."""
    command = [sys.executable, "-m", "fourways_agent", "update", "--state", str(store.folder)]
    began = monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    assert process.returncode == 0, said.decode()
    return monotonic() - began


def test_a_new_model_that_ends_the_process_at_every_start_is_given_up(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    crash = (
        "import os, sys; from fourways_agent import device, loading;"
        "real = loading.load_on_device;"
        "loading.load_on_device = lambda contract, files, **more: os.kill(os.getpid(), 11)"
        " if sys.argv[2] in str(files) else real(contract, files, **more);"
        "it = device.Device(sys.argv[1]); print(it.version)"
    )
    with gateway_of(publisher) as gateway:
        store, settings = device(tmp_path, gateway)
        publisher.publish(1)
        update(store, settings)
        assert Device(store.folder).version == "v1"
        digest = publisher.publish(2)
        update(store, settings)
        slot = f"slots/{store.read().slot}/"
        codes, printed = [], []
        for _ in range(MAX_CRASHES + 1):
            ended = subprocess.run(
                [sys.executable, "-c", crash, str(store.folder), slot],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            codes.append(ended.returncode)
            printed.append(ended.stdout.strip())
        assert codes == [-signal.SIGSEGV] * MAX_CRASHES + [0]
        assert printed[-1] == "v1"
        state = store.read()
        assert [it.digest for it in state.bad] == [digest]
        assert (state.confirmed, state.crashes, state.boots) == (True, 0, 0)
