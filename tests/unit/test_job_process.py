"""The process of a job: how it ends where SIGTERM interrupts a library."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fourways_api import RunReport, RuntimeConfig
from fourways_operator.pods import failure_of
from fourways_runtime import process, sigterm
from fourways_runtime.errors import ConfigError
from tests.kit.mode_facts import deployment


@pytest.fixture
def config(tmp_path: Path) -> RuntimeConfig:
    spec = deployment("realtime")["spec"]
    return RuntimeConfig.model_validate(
        {
            "namespace": "demo",
            "name": "m",
            "model": spec["model"],
            "contract": spec["contract"],
            "paths": {"terminationLog": str(tmp_path / "last-words")},
        }
    )


@pytest.mark.parametrize("interrupted", [True, False])
def test_an_error_that_a_library_makes_of_a_termination_is_none(
    config: RuntimeConfig, interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(process, "leave", left.append)

    def work(config: RuntimeConfig) -> RunReport:
        try:
            if interrupted:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            raise ImportError("no such library")
        except BaseException:  # noqa: BLE001  (as extension modules do while they are imported)
            raise ConfigError("the library is not in this image") from None

    before = signal.getsignal(signal.SIGTERM)
    try:
        code = process.run_job(lambda: config, work, logging.getLogger("test"))
    finally:
        signal.signal(signal.SIGTERM, before)
    told = json.loads(Path(config.paths.termination_log).read_text())
    if interrupted:
        assert (code, told["reason"]) == (process.EXIT_TERMINATED, "Terminated")
    else:
        assert (code, told["reason"]) == (ConfigError.exit_code, "ConfigError")
    assert left == [code]


def test_a_termination_waits_for_what_must_not_be_interrupted() -> None:
    before = signal.getsignal(signal.SIGTERM)
    done: list[str] = []

    def work() -> None:
        with sigterm.deferred(), sigterm.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the whole")
        done.append("and more")

    sigterm.raise_on_sigterm()
    try:
        with pytest.raises(sigterm.Terminated):
            work()
        with sigterm.deferred():
            done.append("nothing waits any more")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["the whole", "nothing waits any more"]


CRASH = """
import faulthandler, logging, sys
from fourways_api import RuntimeConfig
from fourways_runtime import process, sigterm

def work(config):
    faulthandler._sigabrt()

config = RuntimeConfig.model_validate_json(sys.argv[1])
process.run_job(lambda: config, work, logging.getLogger("test"))
"""


def test_a_library_that_crashes_is_named(config: RuntimeConfig) -> None:
    given = config.model_dump_json(by_alias=True, exclude_none=True)
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, given], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGABRT
    words = Path(config.paths.termination_log).read_text()
    exited = {"exitCode": 134, "reason": "Error", "message": words[-4096:]}
    pod = {"status": {"containerStatuses": [{"lastState": {"terminated": exited}}]}}
    failure = failure_of(pod)
    assert failure is not None
    assert failure.reason == "WorkerFailed"
    assert failure.message.startswith('a library crashed (Aborted) in "<string>", line 7 in work;')
