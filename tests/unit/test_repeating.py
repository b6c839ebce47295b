"""What is repeated goes on after an error, with the pause that it had."""

from __future__ import annotations

import threading

from fourways_runtime.workloads.repeating import repeat


def test_it_goes_on_after_an_error() -> None:
    calls: list[str] = []
    ended = threading.Event()

    def act() -> float:
        calls.append(threading.current_thread().name)
        if len(calls) == 2:
            raise ValueError("once")
        if len(calls) == 4:
            ended.set()
        return 3600.0 if ended.is_set() else 0.0

    repeat("work", act, 0.0)
    assert ended.wait(30)
    assert calls == ["work"] * 4
