"""Calls into a model by a program that embeds the agent: each one returns, or raises ModelHangs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from fourways_agent.model_calls import MAX_LEFT_BEHIND, BoundedCalls
from fourways_runtime.errors import ModelHangs
from fourways_runtime.model_watch import ModelWatch
from tests.kit.waiting import until


@pytest.fixture
def watch() -> ModelWatch:
    return ModelWatch()


def hanging(watch: ModelWatch, released: threading.Event) -> Callable[[], str]:
    def work() -> str:
        with watch.doing("scoring", "the record"), watch.call(1, seconds=0.0):
            released.wait()
        return "late"

    return work


def test_a_call_that_does_not_return_raises_and_others_are_answered(watch: ModelWatch) -> None:
    calls, released = BoundedCalls(watch), threading.Event()
    with pytest.raises(ModelHangs, match="scoring: 1 row of the record; the model has not"):
        calls.run(hanging(watch, released))
    assert calls.hang
    assert calls.run(lambda: 7) == 7
    assert watch.overdue() is None, "this call is not for the process to judge"
    assert watch.longest() == 0.0
    released.set()
    until(lambda: not calls.hang, "the thread has returned")


@pytest.mark.thorough
def test_after_several_every_call_raises_at_once_until_one_returns(watch: ModelWatch) -> None:
    calls, released = BoundedCalls(watch), threading.Event()
    for _ in range(MAX_LEFT_BEHIND):
        with pytest.raises(ModelHangs, match="the model has not returned"):
            calls.run(hanging(watch, released))
    with pytest.raises(ModelHangs, match="start this program again"):
        calls.run(lambda: 7)
    released.set()
    until(lambda: not calls.hang, "the threads have returned")
    assert calls.run(lambda: 7) == 7


def test_errors_of_the_work_are_raised_as_they_are(watch: ModelWatch) -> None:
    calls = BoundedCalls(watch)

    def fails() -> None:
        raise TimeoutError("of the work itself")

    with pytest.raises(TimeoutError, match="of the work itself"):
        calls.run(fails)
    assert calls.run(threading.get_ident) == calls.run(threading.get_ident), "the same thread"


def test_a_fork_has_threads_of_its_own(watch: ModelWatch) -> None:
    calls = BoundedCalls(watch)
    calls.run(lambda: None)
    pid = os.fork()
    if pid == 0:
        os._exit(calls.run(lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
