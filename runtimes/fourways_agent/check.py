"""Checks that run in a separate process because the model may crash it.

* ``model SLOT KEYS DIGEST``: does the model reproduce its golden vectors on this device?
* ``boot STATE``: start from the pointer as the agent does, so that a new model is confirmed (or
  rejected) where no program is running.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fourways_runtime.errors import ModelHangs
from fourways_runtime.model_watch import WATCH

from .errors import AgentError, ModelUnusable, TemporaryFailure
from .model_calls import ended
from .slot import open_bundle
from .trust import TrustedKeys

SECONDS = 300.0

_CRASHES = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
)
"""Signals that a process causes itself. Any other signal was sent by another process."""


def test_model(slot: Path, key_pem: str, digest: str) -> dict[str, Any]:
    """Test a slot's model on its golden vectors in a separate process; return the figures.

    Raises:
        ModelUnusable: the model fails its golden vectors, crashes, or does not return.
        TemporaryFailure: the process was killed or took too long, or memory ran out.

    """
    return _in_process("model", str(slot), key_pem, digest)


def boot(state: Path) -> dict[str, Any]:
    """Start from the pointer in a separate process; return which bundle serves.

    Raises AgentError.
    """
    return _in_process("boot", str(state))


def _in_process(what: str, *arguments: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fourways_agent.check", what, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TemporaryFailure(f"the {what} check took longer than {SECONDS:g} s") from None
    if -done.returncode in _CRASHES:
        raise ModelUnusable(f"the model crashes on this device (signal {-done.returncode})")
    if done.returncode < 0:
        raise TemporaryFailure(
            f"the {what} check was ended by signal {-done.returncode};"
            " see whether the device has enough memory"
        )
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise TemporaryFailure(f"the {what} check failed: {_printable(last)}") from None
    if "refused" in answer:
        raise ModelUnusable(str(answer["refused"]))
    if "temporary" in answer:
        raise TemporaryFailure(str(answer["temporary"]))
    return answer


def _printable(text: str) -> str:
    return "".join(it for it in text if it.isprintable())[:200]


# ---------------------------------------------------------------- in the process


def _model(slot: str, key_pem: str, digest: str) -> dict[str, Any]:
    from .loading import load

    keys = TrustedKeys.parse(key_pem.encode())
    return load(open_bundle(Path(slot), keys, digest)).self_test()


def _boot(state: str) -> dict[str, Any]:
    from .start import boot as start
    from .state import Store

    loaded = start(Store(Path(state)))
    return {"digest": loaded.bundle.digest, "version": loaded.bundle.version}


def _hung(error: ModelHangs) -> None:
    """End this process, because the call does not return."""
    print(json.dumps({"refused": f"{error.reason}: {error}"}), flush=True)
    os._exit(0)


def main(arguments: Sequence[str]) -> int:
    """Run one check; print its outcome as JSON."""
    from fourways_runtime.errors import WorkloadError

    from .loading import lacks_memory

    WATCH.start(_hung)
    checks: dict[str, Any] = {"model": _model, "boot": _boot}
    try:
        answer = checks[arguments[0]](*arguments[1:])
    except WorkloadError as error:
        kind = "temporary" if lacks_memory(error) else "refused"
        answer = {kind: f"{error.reason}: {error}"}
    except TemporaryFailure as error:
        answer = {"temporary": str(error)}
    except AgentError as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer))
    return ended(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
